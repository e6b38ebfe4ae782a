"""Optimizers and alpha: labels, masks, projection, freezing; for optax, and without it.

All take parameters of linen and states of nnx. An ``alpha`` is a leaf of that name in a layer that
has no other leaves but ``scale``, ``bias``, ``mean`` and ``var``.
"""

from unitnorm_jax.optim._clip_alpha import clip_alpha as clip_alpha
from unitnorm_jax.optim._freeze_alpha import freeze_alpha as freeze_alpha
from unitnorm_jax.optim._labels import all_but_alpha as all_but_alpha
from unitnorm_jax.optim._labels import alpha_labels as alpha_labels
from unitnorm_jax.optim._labels import only_alpha as only_alpha
from unitnorm_jax.optim._set_alpha import set_alpha as set_alpha
from unitnorm_jax.optim._transformation import Transformation as Transformation
