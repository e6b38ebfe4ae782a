"""What finished runs say: results, comparisons, figures, pages."""
