"""Models with hard-coded batch normalization, each as a function of the layer that it hard-codes.

``MODELS[name](nn.BatchNorm)`` is the model as written; with ``linen.BatchNorm`` it is swapped by
hand, which ``unitize`` of the former must equal bit for bit.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def compact(norm):
    class Net(nn.Module):
        features: int = 4

        @nn.compact
        def __call__(self, x, train=True):
            x = nn.Dense(self.features)(x)
            x = nn.relu(norm(use_running_average=not train, momentum=0.9)(x))
            x = norm(use_running_average=not train, use_scale=False, name="last")(x)
            return nn.Dense(2)(x)

    return Net()


def setup(norm):
    class Encoder(nn.Module):
        def setup(self):
            self.dense = nn.Dense(4)
            self.norm = norm(momentum=0.9)

        def __call__(self, x, train=True):
            return nn.relu(self.norm(self.dense(x), use_running_average=not train))

    class Net(nn.Module):
        def setup(self):
            self.encoder = Encoder()
            self.blocks = [norm(momentum=0.5), nn.Sequential([nn.Dense(3)])]
            self.named = {"a": norm(use_bias=False)}

        def encode(self, x, train=True):
            return self.encoder(x, train)

        def __call__(self, x, train=True):
            x = self.blocks[0](self.encode(x, train), use_running_average=not train)
            return self.blocks[1](self.named["a"](x, use_running_average=not train))

    return Net()


def sequential(norm):
    class Net(nn.Module):
        layers: Any

        @nn.compact
        def __call__(self, x, train=True):
            return self.layers[1](self.layers[0](x), use_running_average=not train)

    return Net((nn.Dense(4), norm()))


def lifted_layer(transform):
    def build(norm):
        kind = transform(norm)

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x, train=True):
                x = kind(use_running_average=not train, name="norm")(nn.Dense(4)(x))
                return nn.Dense(2)(nn.relu(x))

        return Net()

    return build


def block_class(norm):
    class Block(nn.Module):
        train: bool = True

        @nn.compact
        def __call__(self, x):
            return x + nn.relu(norm(use_running_average=not self.train)(nn.Dense(3)(x)))

    return Block


def lifted_block(transform):
    def build(norm):
        block = transform(block_class(norm))

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x, train=True):
                x = block(train, name="block_0")(x)
                return nn.Dense(2)(block(train, name="block_1")(x))

        return Net()

    return build


def whole(transform):
    """The model itself is of a lifted class."""

    def build(norm):
        return transform(type(compact(norm)))()

    return build


def lifted_method(transform):
    def build(norm):
        class Net(nn.Module):
            def setup(self):
                self.dense, self.norm = nn.Dense(4), norm()

            @transform
            def fit(self, x):
                return self.norm(self.dense(x), use_running_average=False)

            @transform
            def infer(self, x):
                return self.norm(self.dense(x), use_running_average=True)

            def __call__(self, x, train=True):
                return self.fit(x) if train else self.infer(x)

        return Net()

    return build


def scan(norm):
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            y = norm(use_running_average=not train)(nn.Dense(3)(x))
            return x + nn.relu(y), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            axes = {"params": 0, "batch_stats": 0, "intermediates": 0}
            layers = nn.scan(
                Block, variable_axes=axes, split_rngs={"params": True}, length=3,
                in_axes=nn.broadcast,
            )  # fmt: skip
            return layers(name="layers")(x, train)[0]

    return Net()


def vmap(norm):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            heads = nn.vmap(
                block_class(norm), in_axes=None, axis_size=2, split_rngs={"params": True},
                variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0},
            )  # fmt: skip
            return heads(train, name="heads")(x).sum(0)

    return Net()


def remat_scan(norm):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            block = nn.remat_scan(
                block_class(norm), lengths=(2, 2), variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
            )  # fmt: skip
            return block(train, name="block")(x)

    return Net()


def shared(norm):
    """A layer that is called twice, and a block that two others hold."""

    class Twice(nn.Module):
        inner: Any

        def __call__(self, x, train):
            return self.inner(self.inner(x, use_running_average=not train).sum(-1, keepdims=True)
                              + x, use_running_average=not train)  # fmt: skip

    class Net(nn.Module):
        def setup(self):
            self.norm = norm(momentum=0.9)
            self.first, self.second = Twice(self.norm), Twice(self.norm)

        def __call__(self, x, train=True):
            return self.second(self.first(x, train), train)

    return Net()


def map_variables(norm):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            def doubled(params):
                return jax.tree.map(lambda value: 2 * value, params)

            mapped = nn.map_variables(norm, "params", doubled, init=self.is_initializing())
            return mapped(use_running_average=not train, name="norm")(nn.Dense(4)(x))

    return Net()


def name_scope(norm):
    class Net(nn.Module):
        @nn.compact_name_scope
        def up(self, x, train):
            return norm(use_running_average=not train)(nn.Dense(4)(x))

        def __call__(self, x, train=True):
            return self.up(x, train)

    return Net()


def keyword_only(norm):
    class Net(nn.Module, kw_only=True):
        width: int
        scale: float = 2.0

        @nn.compact
        def __call__(self, x, train=True):
            return self.scale * norm(use_running_average=not train)(nn.Dense(self.width)(x))

    return Net(width=4)


def condition(norm):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            layer = norm(use_running_average=not train, name="norm")
            if self.is_initializing():
                return layer(x)
            return nn.cond(jnp.sum(x) > -1e6, lambda m, x: m(x), lambda m, x: x, layer, x)

    return Net()


MODELS = {
    "compact": compact,
    "setup": setup,
    "layers in a field": sequential,
    "jit layer": lifted_layer(nn.jit),
    "remat layer": lifted_layer(nn.remat),
    "jit block": lifted_block(nn.jit),
    "remat block": lifted_block(nn.remat),
    "jit model": whole(partial(nn.jit, static_argnums=(2,))),
    "remat model": whole(partial(nn.remat, static_argnums=(2,))),
    "jit methods": lifted_method(nn.jit),
    "remat methods": lifted_method(nn.remat),
    "scan": scan,
    "vmap": vmap,
    "remat_scan": remat_scan,
    "shared": shared,
    "map_variables": map_variables,
    "compact_name_scope": name_scope,
    "keywords": keyword_only,
    "cond": condition,
}


class Net(nn.Module):
    """Two layers; `norm` may be another one."""

    norm: Any = nn.BatchNorm

    @nn.compact
    def __call__(self, x, train=True):
        x = self.norm(use_running_average=not train, name="first")(nn.Dense(4)(x))
        return self.norm(use_running_average=not train, name="last")(nn.relu(x))
