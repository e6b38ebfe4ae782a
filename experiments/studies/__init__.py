"""Studies: a question each, answered by runs or by samples."""
