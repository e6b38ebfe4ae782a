"""Decoding: what is bad is named; crops against pixels that tell where they are from."""

import io
import re
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from experiments.data.images import (
    BadImageError,
    BadImages,
    center_crop,
    check_label,
    decode_gray,
    decode_rgb,
    need,
    random_resized_crop,
    resize,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEEP = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


RGB = Image.fromarray(PIXELS)
JPEG, PNG = encode(RGB, "JPEG"), encode(RGB)
ALPHA = RGB.copy()
ALPHA.putalpha(128)


def test_pixels_are_those_of_pil():
    np.testing.assert_array_equal(decode_rgb(PNG, "a", False), PIXELS)
    np.testing.assert_array_equal(decode_rgb(PNG, "a", True), PIXELS)
    # Two decoders of the same library family; the standard allows a difference of 1.
    expected = np.asarray(Image.open(io.BytesIO(JPEG))).astype(int)
    for convert in (False, True):
        assert np.abs(decode_rgb(JPEG, "a", convert) - expected).max() <= 1


def test_grayscale():
    gray = encode(Image.fromarray(PIXELS[..., 0]))
    np.testing.assert_array_equal(decode_gray(gray, "a"), PIXELS[..., :1])
    for content, message in {
        gray[:-40]: r"a is damaged or truncated \([\d,]+ bytes\)\.",
        PNG: "a is not 8-bit grayscale, as it must be.",
        encode(DEEP): "a is not 8-bit grayscale, as it must be.",
    }.items():
        with pytest.raises(BadImageError, match=message):
            decode_gray(content, "a")


def test_palettes_are_looked_up():
    palette = RGB.quantize(16)
    found = decode_rgb(encode(palette), "a", False)
    np.testing.assert_array_equal(found, np.asarray(palette.convert("RGB")))


def test_orientation_tags_are_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter.
    content = encode(RGB, "JPEG", exif=exif)
    assert decode_rgb(content, "a", False).shape == decode_rgb(content, "a", True).shape
    assert decode_rgb(content, "a", True).shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (encode(RGB.convert("L"), "JPEG"), "grayscale"),
        (encode(RGB.convert("L")), "grayscale"),
        (encode(RGB.convert("LA")), "grayscale"),
        (encode(RGB.convert("1")), "black and white"),
        (encode(RGB.convert("CMYK"), "JPEG"), "CMYK"),
        (encode(DEEP), "16-bit"),
        (encode(ALPHA), "an image of mode RGBA"),
    ],
)
def test_other_kinds_are_converted_only_when_asked(content, kind):
    message = f"image a.jpg is {kind}, but must be 8-bit RGB; --data.convert-images converts such"
    with pytest.raises(BadImageError, match=re.escape(message)):
        decode_rgb(content, "image a.jpg", False)
    image = decode_rgb(content, "image a.jpg", True)
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8


def test_deep_colours_are_noticed():
    """PIL takes them for 8-bit."""
    import cv2

    content = cv2.imencode(".png", PIXELS.astype(np.uint16) * 257)[1].tobytes()
    with pytest.raises(BadImageError, match=r"image a\.png is 16-bit, but must be 8-bit RGB"):
        decode_rgb(content, "image a.png", False)
    np.testing.assert_array_equal(decode_rgb(content, "a", True), PIXELS[..., ::-1])


def test_a_palette_with_transparency_is_noticed():
    content = encode(RGB.quantize(16), transparency=0)
    with pytest.raises(BadImageError, match="is an image with an alpha channel, but must be"):
        decode_rgb(content, "a", False)


def test_conversions():
    gray = np.asarray(RGB.convert("L"))
    found = decode_rgb(encode(RGB.convert("L")), "a", True)
    np.testing.assert_array_equal(found, np.repeat(gray[..., None], 3, axis=2))
    np.testing.assert_array_equal(decode_rgb(encode(ALPHA), "a", True), PIXELS)
    np.testing.assert_array_equal(decode_rgb(encode(DEEP), "a", True)[..., 1], PIXELS[..., 0])
    cmyk = encode(RGB.convert("CMYK"), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB")).astype(int)
    assert np.abs(decode_rgb(cmyk, "a", True) - expected).max() <= 2


@pytest.mark.parametrize("convert", [False, True])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello" * 99, JPEG[: len(JPEG) // 2], JPEG[:-2], JPEG[:30], PNG[: len(PNG) // 2]],
    ids=["empty", "garbage", "half", "without end", "head", "half png"],
)
def test_damaged_files(content, convert):
    message = rf"image x/a.jpg is damaged or truncated \({len(content):,} bytes\)\."
    with pytest.raises(BadImageError, match=message):
        decode_rgb(content, "image x/a.jpg", convert)


@pytest.mark.parametrize("convert", [False, True])
def test_a_jpeg_that_is_cut_inside_but_ends_as_it_should(convert):
    """Decoders only warn, and fill the rest with gray."""
    large = Image.fromarray(RNG.integers(0, 256, (90, 70, 3), dtype=np.uint8))
    whole = encode(large, "JPEG")
    content = whole[: len(whole) // 2] + whole[-2:]
    with pytest.raises(BadImageError, match=r"image b.jpg is damaged .* The decoder: .*[Cc]orrupt"):
        decode_rgb(content, "image b.jpg", convert)
    gray = encode(large.convert("L"), "JPEG")
    with pytest.raises(BadImageError, match="is damaged"):
        decode_gray(gray[: len(gray) // 2] + gray[-2:], "a")
    # The original files of ImageNet have stray bytes: there decoders are trusted.
    assert decode_rgb(content, "a", convert, strict=False).shape == (90, 70, 3)


def test_checksums_of_every_part_of_a_png():
    """Also of those that do not hold pixels, which decoders pass over."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "hello")
    content = encode(RGB, pnginfo=info)
    np.testing.assert_array_equal(decode_rgb(content, "a", True), PIXELS)
    with pytest.raises(BadImageError, match="is damaged or truncated"):
        decode_rgb(content.replace(b"hello", b"jello"), "a", True)
    with pytest.raises(BadImageError, match="is damaged or truncated"):
        decode_rgb(PNG[:-1] + b"\0", "a", True)


@pytest.mark.parametrize("convert", [False, True])
def test_images_too_large_to_decode(convert):
    content = bytearray(PNG)
    content[16:24] = struct.pack(">II", 60_000, 60_000)  # The header says so, in a few bytes.
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(BadImageError, match="a has more than 100,000,000 pixels"):
        decode_rgb(bytes(content), "a", convert)


def test_a_flipped_byte_of_a_png():
    content = bytearray(PNG)
    content[len(content) // 2] ^= 1
    with pytest.raises(BadImageError, match="is damaged or truncated"):
        decode_rgb(bytes(content), "a", False)


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_no_class_has(label):
    with pytest.raises(BadImageError, match=rf"a has label {label}, but must have one from 0 to 9"):
        check_label(label, 10, "a")
    assert check_label(9, 10, "a") == 9


def test_skipped_images_are_counted_once():
    bad = BadImages("skip", ["b is bad."])
    for _ in range(2):
        bad.add(BadImageError("a is bad."))
    assert bad.reasons() == ("b is bad.", "a is bad.")
    with pytest.raises(BadImageError, match=r"a is bad\. To leave .*: --data.on-bad-image skip"):
        BadImages("error").add(BadImageError("a is bad."))


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"cv2 is not installed.*uv pip install --group data"):
        need("cv2")


def test_center_crop_of_the_customary_size_moves_no_pixel():
    """256 pixels to 224: the middle, not resized."""
    image = RNG.integers(0, 256, (256, 300, 3), dtype=np.uint8)
    np.testing.assert_array_equal(center_crop(image, 224, 32), image[16:240, 38:262])
    np.testing.assert_array_equal(center_crop(image, 256), image[:, 22:278])


def test_shrinking_averages():
    """To a half: the mean of 2x2 pixels; so nothing aliases."""
    image = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = image.reshape(32, 2, 32, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(resize(image, 32) - expected).max() <= 0.5
    stripes = np.zeros((63, 65, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, 15).astype(float) - 127.5).max() < 20
    assert resize(image[:3, :5], 8).shape == (8, 8, 3)


def crop_boxes(count, h, w):
    """Random crops of an image whose pixels are their coordinates: (top, left, height, width)."""
    y, x = np.mgrid[:h, :w]
    image = np.stack([y, x, np.zeros_like(x)], axis=-1).astype(np.uint8)
    for i in range(count):
        out = random_resized_crop(np.random.default_rng(i), image, 64).astype(float)
        # Pixel centres of the result, as bilinear interpolation places them; away from the border.
        height = (out[47, :, 0].mean() - out[16, :, 0].mean()) * 64 / 31
        width = (out[:, 47, 1].mean() - out[:, 16, 1].mean()) * 64 / 31
        centre = [out[31:33, :, 0].mean(), out[:, 31:33, 1].mean()]
        yield centre[0] + 0.5 - height / 2, centre[1] + 0.5 - width / 2, height, width


def test_random_crops_are_inside_and_of_the_right_sizes():
    from scipy import stats

    h, w = 200, 250
    boxes = np.asarray(list(crop_boxes(400, h, w)))
    top, left, height, width = boxes.T
    tolerance = 2.0  # The boxes are measured on rounded pixels.
    assert top.min() > -tolerance
    assert left.min() > -tolerance
    assert (top + height).max() < h + tolerance
    assert (left + width).max() < w + tolerance
    ratio, area = width / height, height * width / (h * w)
    assert 0.72 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.38
    assert 0.07 < area.min() < 0.1
    # Parts that do not fit are drawn again, so the large are fewer; up to 1/2 nearly all fit.
    small = area[area < 0.5]
    assert stats.kstest(small, stats.uniform(0.08, 0.42).cdf).pvalue > 0.01
    assert stats.kstest(np.log(ratio[area < 0.5]), stats.uniform(-0.288, 0.575).cdf).pvalue > 0.01


def test_extreme_images_are_cropped_in_the_middle():
    """A ratio of 100 never fits, so the largest part with an allowed ratio is taken."""
    image = np.zeros((10, 1000, 3), np.uint8)
    image[:, 493:507] = 200
    out = random_resized_crop(np.random.default_rng(0), image, 8)
    # 13 or so of 1,000 columns are in it; one of them may be outside of the marked ones.
    assert (out == 200).mean() > 0.8
    assert resize(image[:, :1], 4).shape == (4, 4, 3)
