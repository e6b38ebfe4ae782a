"""Every method in the same network, on the same images, with the same seeds and budget.

Command line: ``python -m experiments zoo``. With its defaults on digits, about an hour on two
CPU cores; ``--methods``, ``--seeds`` and ``--epochs`` make it shorter. What is measured of a
method is kept at once, and a call with the same options goes on where the last one stopped.
"""
