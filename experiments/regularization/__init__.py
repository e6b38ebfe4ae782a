"""Batch normalization as regularization that the data tune.

Command line: ``python -m experiments.regularization``.
With its defaults, a few minutes on two CPU cores. The weights that batch normalization amounts to
shrink as noise is added to the inputs, and the weight decay it implies grows, about as the weight
decay does that is best for the same network without normalization, but stays below it.
"""
