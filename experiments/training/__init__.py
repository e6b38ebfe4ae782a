"""One training job, from the configuration to the compiled step and its checkpoints."""
