"""Training jobs: the only place that knows optax, orbax, data sets and the command line."""
