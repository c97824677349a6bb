"""The fast decoders give Pillow's pixels, and refuse what is not whole."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from semivl.data.decode import MOST_PIXELS, decode_grey, decode_image, decode_mask, turned
from semivl.data.headers import read_header
from tests.data import pictures

ANYTHING = settings(deadline=None, max_examples=60)
SIZES = st.integers(1, 70)


def by_pillow(body: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(body))).convert("RGB")


def grey_by_pillow(body: bytes) -> Image.Image:
    """The luma that a JPEG in colours stores; of anything else the grey of its colours."""
    stored = Image.open(io.BytesIO(body))
    if stored.format == "JPEG" and stored.mode == "RGB":
        stored.draft("L", stored.size)
        return ImageOps.exif_transpose(stored)
    return by_pillow(body).convert("L")


def assert_pillows_pixels(body: bytes) -> None:
    np.testing.assert_array_equal(decode_image(body), np.asarray(by_pillow(body)))
    np.testing.assert_array_equal(decode_grey(body, read_header(body)), np.asarray(grey_by_pillow(body)))


@ANYTHING
@given(
    seed=st.integers(0, 99),
    width=SIZES,
    height=SIZES,
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    quality=st.integers(1, 100),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
)
def test_pixels_of_any_jpeg_are_pillows(seed, width, height, mode, quality, subsampling, progressive):
    picture = Image.fromarray(pictures.pixels(seed, width, height)).convert(mode)
    options = {"subsampling": subsampling} if mode != "L" else {}
    assert_pillows_pixels(pictures.saved(picture, "JPEG", quality=quality, progressive=progressive, **options))


@ANYTHING
@given(seed=st.integers(0, 99), width=SIZES, height=SIZES, mode=st.sampled_from(["RGB", "L", "P", "1"]))
def test_pixels_of_any_png_are_pillows(seed, width, height, mode):
    assert_pillows_pixels(pictures.saved(Image.fromarray(pictures.pixels(seed, width, height)).convert(mode), "PNG"))


@pytest.mark.real_data
@pytest.mark.slow
def test_pixels_of_real_photos_are_pillows():
    root = Path(os.environ["SEMIVL_REAL_DATA"]) / "voc2012-subset"
    paths = sorted([*root.glob("JPEGImages/*.jpg"), *root.glob("SegmentationClass/*.png")])
    assert len(paths) > 1000
    for path in paths:
        body = path.read_bytes()
        if path.suffix == ".jpg":
            assert_pillows_pixels(body)
        else:
            np.testing.assert_array_equal(decode_mask(body), np.asarray(Image.open(path)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("order", [b"II", b"MM"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_whoever_wrote_it(kind, order, orientation):
    mark = "<" if order == b"II" else ">"
    entries = struct.pack(f"{mark}HHIHH", 0x0100, 3, 1, 9, 0) + struct.pack(
        f"{mark}HHIHH", 0x0112, 3, 1, orientation, 0
    )
    exif = order + struct.pack(f"{mark}HIH", 42, 8, 2) + entries + bytes(4)
    body = pictures.saved(pictures.pixels(), kind, exif=b"Exif\x00\x00" + exif)
    assert read_header(body).orientation == orientation
    assert_pillows_pixels(body)
    assert decode_image(body).flags.c_contiguous


@given(pixels=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5)), orientation=st.integers(1, 8))
def test_turned_is_what_pillow_does(pixels, orientation):
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turned(pixels, orientation), np.asarray(ImageOps.exif_transpose(image)))


def test_cmyk_keeps_its_colours_whether_adobe_wrote_it_or_not():
    """Adobe's programs store CMYK upside down and say so in a marker of their own."""
    smooth = np.asarray(Image.fromarray(pictures.pixels(1, 4, 4)).resize((64, 64), Image.Resampling.BICUBIC))
    picture = Image.fromarray(smooth).convert("CMYK")
    adobe = pictures.saved(picture, "JPEG", quality=95)
    at = adobe.index(b"\xff\xee")
    upside_down = pictures.saved(Image.fromarray(255 - np.asarray(picture), "CMYK"), "JPEG", quality=95)
    plain = upside_down[:at] + upside_down[at + 16 :]
    assert b"Adobe" in adobe and b"Adobe" not in plain
    for body in (adobe, plain):
        assert read_header(body).colours == 4
        assert np.abs(decode_image(body).astype(int) - smooth).mean() < 4


@given(alpha=hnp.arrays(np.uint8, (4, 5)))
def test_what_is_transparent_lets_white_through(alpha):
    colours = pictures.pixels(2, 5, 4)
    body = pictures.saved(np.dstack([colours, alpha]), "PNG")
    if not alpha.any():
        with pytest.raises(ValueError, match="transparent"):
            decode_image(body)
        return
    share = alpha[..., None] / 255
    expected = colours * share + 255 * (1 - share)
    assert np.abs(decode_image(body) - expected).max() <= 1
    opaque = (alpha == 255)[..., None]
    assert (np.where(opaque, decode_image(body), 0) == np.where(opaque, colours, 0)).all()


@pytest.mark.parametrize("colours", ["palette", "RGB", "grey"])
def test_a_colour_that_stands_for_transparency_is_white(colours):
    ids = np.array([[0, 1], [1, 0]], np.uint8)
    header, first = {
        "palette": ((3, pictures.chunk(b"PLTE", bytes([10] * 3 + [20] * 3)), pictures.chunk(b"tRNS", b"\x00")), 10),
        "RGB": ((2, pictures.chunk(b"tRNS", bytes(6))), 1),
        "grey": ((0, pictures.chunk(b"tRNS", bytes(2))), 1),
    }[colours]
    raw = pictures.rows(np.dstack([ids] * 3) if colours == "RGB" else ids)
    shown = decode_image(pictures.png(raw, 2, 2, 8, *header))[..., 0]
    assert shown.tolist() == [
        [255, first * 2 if colours == "palette" else 1],
        [first * 2 if colours == "palette" else 1, 255],
    ]


def test_picture_that_promises_too_much_is_refused_before_memory_is_asked_for():
    for body in (
        pictures.resized(pictures.saved(pictures.pixels(), "JPEG"), 65535, 65535),
        pictures.png(b"", 60_000, 60_000),
    ):
        with pytest.raises(ValueError, match="promises"):
            decode_image(body)
    assert MOST_PIXELS < 65535**2


@ANYTHING
@given(
    ids=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)),
    mode=st.sampled_from("LP"),
    level=st.integers(0, 9),
)
def test_ids_of_any_mask_are_kept(ids, mode, level):
    mask = Image.fromarray(ids)
    if mode == "P":
        mask.putpalette(np.arange(768).astype(np.uint8).tobytes())
    body = pictures.saved(mask, "PNG", compress_level=level)
    found = decode_mask(body)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, ids)


@ANYTHING
@given(
    ids=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)),
    interlace=st.booleans(),
    splits=st.integers(1, 5),
)
def test_rows_of_no_filter_are_read_in_whatever_pieces(ids, interlace, splits):
    height, width = ids.shape
    raw = pictures.interlaced(ids) if interlace else pictures.rows(ids)
    body = pictures.png(raw, width, height, 8, 3, pictures.chunk(b"PLTE", bytes(768)), interlace=int(interlace))
    at = body.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", body, at)
    packed = body[at + 8 : at + 8 + length]
    step = -(-len(packed) // splits)
    pieces = [pictures.chunk(b"IDAT", packed[i : i + step]) for i in range(0, len(packed), step)]
    body = body[:at] + b"".join(pieces) + body[at + 12 + length :]
    np.testing.assert_array_equal(decode_mask(body), ids)
    np.testing.assert_array_equal(decode_mask(body), np.asarray(Image.open(io.BytesIO(body))))


@ANYTHING
@given(share=st.floats(0, 0.995), which=st.sampled_from(["JPEG", "progressive", "PNG", "mask"]))
def test_nothing_that_is_cut_off_is_decoded(share, which):
    if which == "mask":
        body, decode = pictures.png(pictures.rows(pictures.pixels(3)[..., 0]), colours=0), decode_mask
    else:
        options = {"progressive": True} if which == "progressive" else {}
        kind = "PNG" if which == "PNG" else "JPEG"
        body, decode = pictures.saved(pictures.pixels(3), kind, **options), decode_image
    with pytest.raises((ValueError, OSError)):
        decode(body[: int(share * len(body))])


@pytest.mark.parametrize("body", [b"", b"GIF89a" + bytes(40), b"\xff\xd8\xff"])
def test_what_is_no_picture_is_an_error_of_its_own(body):
    for decode in (decode_image, decode_mask):
        with pytest.raises(ValueError):
            decode(body)


def test_jpeg_is_no_mask():
    with pytest.raises(ValueError, match="JPEG"):
        decode_mask(pictures.saved(pictures.pixels()[..., 0], "JPEG"))
