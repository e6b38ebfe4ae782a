"""."""


def summarize(rows, n):
    return {}


def tables(record):
    return {}
