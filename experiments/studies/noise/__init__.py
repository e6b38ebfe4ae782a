"""Accuracy on noisy analog hardware, and what statistics help: ``python -m experiments noise``.

Expected: about seven minutes on two CPU cores. On digits, additive noise of 0.08 of the range of
each layer's weights takes batch normalization from 99 % to 69 % with the statistics of training,
to 93 % with recalibrated ones and to 91 % with tracked ones; unitized batch normalization to 60,
93 and 90 %; and a network without normalization from 96 % to 55 %. Drift shows the most: at 100
times the time of the first read, statistics of training leave 26 %, recalibrated ones 99 %. Noise
of the outputs shows the least: it is no shift of statistics, and stays. Tracking has met six
batches of test images by the end, and lags where the shift is large.
"""
