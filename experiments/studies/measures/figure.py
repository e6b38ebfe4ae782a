"""."""


def correlations_figure(record): ...
