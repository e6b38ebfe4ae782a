"""Experiments by name: one file each, whose docstring is its run card.

A file has one ``CONFIG``, from which ``python -m experiments train NAME`` starts; further options
change it, so that one file stands for a family: ``--norms gn none``, ``--norm.unit rms``.
``python -m experiments configs`` lists them.
"""

from experiments.configs.choose import Choice as Choice
from experiments.configs.choose import choose as choose
from experiments.configs.choose import load as load
from experiments.configs.choose import names as names
