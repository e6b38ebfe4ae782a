"""Does it matter how shift is measured, and does less shift go with higher accuracy?

Small networks are trained with several methods, learning rates and batch sizes, on two data sets;
in each run every measure of ``unitnorm_jax.ics`` is taken of the same updates. Their rank
correlations with the certified Earth Mover distance, and with the accuracy of the runs, answer.
"""
