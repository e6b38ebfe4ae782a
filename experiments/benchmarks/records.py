"""Makes data sets of records in the form of ImageNet's, without tensorflow."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.data.images import need

# Name of the image, bytes of its JPEG file, label.
Record = tuple[str, bytes, int]


def write_records(
    root: Path, name: str, splits: Mapping[str, Iterable[Record]], num_classes: int
) -> Path:
    """Write a data set that reads like a prepared ``imagenet2012``.

    Args:
        root: Folder of the prepared data sets.
        name: Name of the data set.
        splits: Records of each split; their names differ.
        num_classes: Number of classes.

    Returns:
        Its folder.
    """
    tfds: Any = need("tensorflow_datasets")
    tfds.disable_progress_bar()

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
        """A builder of records that are there already."""

        VERSION = tfds.core.Version("5.1.0")
        name: str

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=num_classes),
                "file_name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            del dl_manager
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, records: Iterable[Record]) -> Iterator[Any]:
            for file_name, content, label in records:
                yield file_name, {"image": content, "label": label, "file_name": file_name}

    Builder.name = name
    builder = Builder(data_dir=root, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):  # It tells of a download, and there is none.
        builder.download_and_prepare()
    return Path(builder.data_dir)
