"""Which layers of a ``PreActResNet`` equi-normalization must scale together."""

from typing import Any

from experiments.models.fields import params_at
from unitnorm_jax.contrib.enorm import EnormGroup


def preact_groups(params: Any) -> tuple[tuple[EnormGroup, ...], dict[str, int]]:
    """Return the groups of ``enorm_factors``, and the depth of every layer.

    Each stage is one residual stream: the stem or the shortcut and the last convolution of every
    block write it; the first convolution of every block, the next shortcut and the classifier read
    it. Normalizations are taken as transparent, which batch normalizations are.

    Args:
        params: Parameters of the network, or their shapes.

    Raises:
        ValueError: If these are not the parameters of a ``PreActResNet``.
    """
    names = sorted((name for name in params if name.startswith("block_")), key=_number)
    missing = [name for name in ("stem_conv", "head") if "kernel" not in params.get(name, {})]
    if missing:
        raise ValueError(
            f"the network has no layer {missing[0]!r} with a `kernel`; equi-normalization knows "
            "the layers of PreActResNet alone. Leave +enorm away."
        )

    def norms(*paths: str) -> tuple[str, ...]:
        """Return the groups that have parameters: a network without normalization has none."""
        return tuple(p for p in paths if params_at(params, p.split("/")))

    groups: list[EnormGroup] = []
    depths = {"stem_conv": 0}
    stream = EnormGroup(("stem_conv",), (), norms("stem_norm"))
    for name in names:
        block = params[name]
        convs = sorted((f"{name}/{n}" for n in block if n.startswith("conv_")), key=_number)
        layer_norms = [norms(f"{name}/norm_{j}") for j in range(len(convs))]
        start = max(depths.values()) + 1
        depths |= {conv: start + j for j, conv in enumerate(convs)}
        stream = stream._replace(
            outgoing=(*stream.outgoing, convs[0]), norms=stream.norms + layer_norms[0]
        )
        groups += [
            EnormGroup((convs[j - 1],), (convs[j],), layer_norms[j]) for j in range(1, len(convs))
        ]
        if "shortcut" in block:
            shortcut = f"{name}/shortcut"
            depths[shortcut] = start
            groups.append(stream._replace(outgoing=(*stream.outgoing, shortcut)))
            stream = EnormGroup((convs[-1], shortcut), ())
        else:
            stream = stream._replace(incoming=(*stream.incoming, convs[-1]))
    depths["head"] = max(depths.values()) + 1
    groups.append(
        stream._replace(
            outgoing=(*stream.outgoing, "head"), norms=stream.norms + norms("head_norm")
        )
    )
    return tuple(groups), depths


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
