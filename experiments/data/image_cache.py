"""The decoded images of image folders: ``python -m experiments image_cache``."""

import dataclasses
import shutil
import sys

from rich.console import Console

from experiments.common.cli import command
from experiments.common.table import Column, Table
from experiments.data.array_cache import cache_root, caches_in, left_in, size_of


@dataclasses.dataclass(frozen=True)
class ImageCacheConfig:
    """Lists the decoded images that are kept of image folders, or clears them.

    They are decoded again when they are needed.
    """

    clear: bool = False
    """Delete them all."""
    cache_dir: str | None = None
    """Where they are. Default: $XDG_CACHE_HOME or ~/.cache, and unitnorm_jax/images there."""


def image_cache(config: ImageCacheConfig, console: Console) -> None:
    """Print what is kept, and delete it if it is to be cleared."""
    root = cache_root(config.cache_dir)
    found = caches_in(root)
    if found:
        columns = (Column("folder"), Column("MB", "{:,.1f}", factor=1e-6))
        console.print(Table("caches", "", "", columns, [(p.name, size_of(p)) for p in found]))
    total = sum(map(size_of, found)) / 1e6
    if config.clear:
        for path in (*found, *left_in(root)):
            shutil.rmtree(path)
    deed = "Deleted" if config.clear else "Kept"
    console.print(f"{deed} {len(found)}, {total:,.1f} MB, in {root}.", soft_wrap=True)


main = command("image_cache", ImageCacheConfig, image_cache)


if __name__ == "__main__":
    sys.exit(main())
