"""Options of the data that cannot be are named."""

import re

import pytest

from experiments.config.data import DataConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "svhn"}, "`dataset` (='svhn') is unknown; choose from digits, mnist5k"),
        ({"max_shift": -1}, "`max_shift` (=-1) must be zero or a positive number."),
        ({"scaling": "std"}, "`scaling` (='std') is unknown; choose from channel-std, pix"),
        (
            {"on_bad_image": "ignore"},
            "`on_bad_image` (='ignore') is unknown; choose from error",
        ),
        ({"image_size": 0}, "`image_size` (=0) must be at least 1."),
        ({"threads": 0}, "`threads` (=0) must be at least 1."),
        ({"dataset": "imagefolder"}, "`data_dir` must be given for imagefolder: the folder that"),
        (
            {"dataset": "imagenet2012", "scaling": "pixel-variance"},
            "`scaling` (='pixel-variance') must be channel-std for imagenet2012",
        ),
    ],
)
def test_impossible_values(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DataConfig(**options)
