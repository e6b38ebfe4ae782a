"""Bound and exact distance against dimension, noise and alpha: ``python -m experiments bounds``.

Expected: under a minute on two CPU cores. Against dimension, the batch-normalized pair is
sqrt(2 d) apart (22.6 at d = 256), which is the bound; unitized it is sqrt(2) apart, under a bound
of 2. Against the noise of the statistics, batch normalization's distance grows without end and
the unitized one stays under 2. In units of the output's own spread the order changes: the pair of
equal means and variances is 1.41 spreads apart either way, and under heavy noise (4) unitized
outputs are further apart (14 spreads against 6), since they gather around one direction. What
unitizing bounds is the absolute distance.
"""
