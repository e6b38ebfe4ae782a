"""What the runs of the CIFAR-10 study say, by its protocol (``experiments/results/PROTOCOL.md``).

``python -m experiments publish`` writes its tables and figures, from one file per run.
"""
