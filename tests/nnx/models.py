"""A model that holds its batch normalizations in every way."""

from flax import nnx


class Block(nnx.Module):
    def __init__(self, norm, rngs):
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.norm = norm

    def __call__(self, x):
        return x + nnx.relu(self.norm(self.conv(x)))


class Net(nnx.Module):
    """Layers in attributes, lists and dictionaries, and one that stands in two places."""

    def __init__(self, rngs):
        def norm():
            return nnx.BatchNorm(4, momentum=0.9, rngs=rngs)

        self.stem = nnx.Sequential(nnx.Conv(3, 4, (3, 3), rngs=rngs), norm())
        shared = norm()
        self.blocks = nnx.List([Block(shared, rngs), Block(shared, rngs), Block(norm(), rngs)])
        self.heads = nnx.Dict(norm=norm(), plain=nnx.LayerNorm(4, rngs=rngs))

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.heads["plain"](self.heads["norm"](x)).mean((1, 2))
