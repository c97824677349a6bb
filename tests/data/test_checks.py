"""Every fault that a file can have is found under its own code, and nothing sound is refused or changed."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from semivl.config import DataConfig
from semivl.data.checks import Checked, Files, Limits, Quarantined, examine
from semivl.data.decode import decode_image, decode_mask
from semivl.data.sample import Source
from semivl.data.source_files import LocalFiles, read_files

MAX = 1_000_000
ANYTHING = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def run(root, classes, image="a.jpg", mask=None, **limits):
    source, bounds = Source(Path(image), "train", Path(mask) if mask else None), Limits(**{"max_pixels": MAX} | limits)
    read = read_files(LocalFiles(root), source, classes, bounds)
    return read if isinstance(read, Quarantined) else examine(source, read, classes, bounds)


def code(found) -> str:
    assert isinstance(found, Quarantined), found
    return found.code


def zip_file() -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("photo.jpg", b"not here")
    return body.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels and holds none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def as_bytes(image: Image.Image, kind: str, **options) -> bytes:
    body = io.BytesIO()
    image.save(body, kind, **options)
    return body.getvalue()


@pytest.mark.parametrize(
    ("content", "expected", "word"),
    [
        (b"", "DATA009", "empty"),
        (zip_file(), "DATA002", "ZIP"),
        (b"GIF89a" + bytes(40), "DATA002", "GIF"),
        (b"just words", "DATA002", "no known kind"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "DATA003", "header"),
        (b"\x89PNG\r\n\x1a\n", "DATA003", "header"),
        (png_header(12_000, 12_000), "DATA010", "12000 x 12000"),
        (png_header(500_000, 500_000), "DATA010", "pixels"),
        (png_header(100, 100), "DATA003", "whole"),
    ],
    ids=["empty", "zip", "gif", "words", "jpeg start", "png start", "144 MP", "250 GP", "no pixels"],
)
def test_each_broken_image_has_its_code(tmp_path, classes, content, expected, word):
    (tmp_path / "a.jpg").write_bytes(content)
    found = run(tmp_path, classes)
    assert code(found) == expected
    assert word in found.reason
    assert found.source == "a.jpg"


def test_file_that_is_not_there_and_folder_in_its_place(tmp_path, classes):
    assert code(run(tmp_path, classes)) == "DATA001"
    (tmp_path / "a.jpg").mkdir()
    assert code(run(tmp_path, classes)) == "DATA001"


def test_pipe_named_like_a_photo_does_not_block(tmp_path, classes):
    os.mkfifo(tmp_path / "a.jpg")
    assert code(run(tmp_path, classes)) == "DATA001"


@pytest.mark.parametrize("image", ["../a.jpg", "/etc/hostname", "images/../../a.jpg"])
def test_path_out_of_the_source_is_not_followed(tmp_path, classes, make, image):
    make.photo(tmp_path / "a.jpg")
    (tmp_path / "source").mkdir()
    assert code(run(tmp_path / "source", classes, image)) == "DATA013"


@ANYTHING
@given(share=st.floats(0, 0.97))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_image_cut_anywhere_is_refused(tmp_path, classes, make, ending, share):
    whole = make.photo(tmp_path / f"whole.{ending}").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: int(share * len(whole))])
    assert code(run(tmp_path, classes, "cut.jpg")) in {"DATA002", "DATA003", "DATA009"}


@ANYTHING
@given(start=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]), rest=st.binary(max_size=200))
def test_no_bytes_make_a_check_raise(tmp_path, classes, make, start, rest):
    make.photo(tmp_path / "sound.jpg")
    (tmp_path / "a.jpg").write_bytes(start + rest)
    assert isinstance(run(tmp_path, classes), Quarantined)
    assert isinstance(run(tmp_path, classes, "sound.jpg", "a.jpg"), Quarantined)


@ANYTHING
@given(at=st.floats(0, 0.999), value=st.integers(0, 255))
def test_damaged_byte_is_decoded_or_refused_but_never_raises(tmp_path, classes, make, at, value):
    body = bytearray(make.mask(tmp_path / "m.png").read_bytes())
    body[int(at * len(body))] = value
    (tmp_path / "m.png").write_bytes(body)
    make.photo(tmp_path / "a.jpg")
    assert isinstance(run(tmp_path, classes, mask="m.png"), Quarantined | Checked)


def test_wrong_ending_does_not_matter_and_bytes_are_kept(tmp_path, classes, make):
    body = make.photo(tmp_path / "really.png").rename(tmp_path / "a.jpg").read_bytes()
    found = run(tmp_path, classes)
    assert isinstance(found, Checked)
    assert (found.ending, found.files.image, found.row.image_bytes) == ("png", body, len(body))
    assert (found.row.supervision, found.row.pixels, found.row.mask_bytes) == ("none", (), None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_mask_must_fit_what_is_seen(tmp_path, classes, make, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = make.photo(tmp_path / "a.jpg", exif=exif)
    seen = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_array_equal(decode_image(path.read_bytes()), seen)
    turned = orientation >= 5
    make.mask(tmp_path / "upright.png", size=(48, 32))
    make.mask(tmp_path / "turned.png", size=(32, 48))
    fits, does_not = ("turned", "upright") if turned else ("upright", "turned")
    found = run(tmp_path, classes, mask=f"{fits}.png")
    assert isinstance(found, Checked)
    assert (found.row.orientation, found.row.height, found.row.width) == (orientation, *seen.shape[:2])
    assert code(run(tmp_path, classes, mask=f"{does_not}.png")) == "DATA005"


def test_orientation_that_does_not_exist_counts_as_upright(tmp_path, classes, make):
    exif = Image.Exif()
    exif[0x0112] = 77
    make.photo(tmp_path / "a.jpg", exif=exif)
    found = run(tmp_path, classes)
    assert isinstance(found, Checked)
    assert found.row.orientation == 1


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, classes, make, mode):
    picture = Image.fromarray(make.pixels(3, 40, 30)).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    (tmp_path / "a.jpg").write_bytes(as_bytes(picture, kind))
    assert isinstance(run(tmp_path, classes), Checked)
    assert decode_image((tmp_path / "a.jpg").read_bytes()).shape == (30, 40, 3)


def test_sixteen_bit_grey_is_scaled_not_cut_off():
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    grey = decode_image(as_bytes(Image.fromarray(deep), "PNG"))
    np.testing.assert_array_equal(grey[..., 0], deep >> 8)


def test_phone_picture_of_several_frames_is_a_jpeg(tmp_path, classes, make):
    first, second = (Image.fromarray(make.pixels(i, 40, 30)) for i in range(2))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    found = run(tmp_path, classes)
    assert isinstance(found, Checked)
    assert found.ending == "jpg"


@ANYTHING
@given(ids=hnp.arrays(np.uint8, (32, 48), elements=st.sampled_from([0, 1, 2, 255])), mode=st.sampled_from("LP"))
def test_mask_ids_are_counted_and_kept(tmp_path, classes, make, ids, mode):
    make.photo(tmp_path / "a.jpg")
    body = make.mask(tmp_path / "m.png", ids, mode=mode).read_bytes()
    np.testing.assert_array_equal(decode_mask(body), ids)
    found = run(tmp_path, classes, mask="m.png")
    if (ids == 255).all():
        assert code(found) == "DATA012"
        return
    assert isinstance(found, Checked)
    assert found.row.pixels == tuple(int((ids == i).sum()) for i in range(3))
    assert found.row.ignored == int((ids == 255).sum())
    assert (found.files.mask, found.row.supervision) == (body, "mask")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_of_few_bits_keeps_its_ids(tmp_path, classes, make, bits):
    ids = (np.arange(32 * 48).reshape(32, 48) % 2).astype(np.uint8)
    mask = Image.fromarray(ids)
    mask.putpalette([200, 10, 10, 10, 200, 10])
    (tmp_path / "m.png").write_bytes(as_bytes(mask, "PNG", bits=bits))
    make.photo(tmp_path / "a.jpg")
    assert isinstance(run(tmp_path, classes, mask="m.png"), Checked)
    np.testing.assert_array_equal(decode_mask((tmp_path / "m.png").read_bytes()), ids)


def broken_masks() -> dict[str, tuple[bytes, str, str]]:
    ids = np.zeros((32, 48), np.uint8)
    unknown = ids.copy()
    unknown[3, 4] = 3
    noise = np.random.default_rng(0).integers(0, 3, (32, 48), dtype=np.uint8)
    return {
        "unknown id": (as_bytes(Image.fromarray(unknown), "PNG"), "DATA004", "[3]"),
        "other size": (as_bytes(Image.fromarray(ids[:, 1:]), "PNG"), "DATA005", "47 x 32"),
        "colours": (as_bytes(Image.fromarray(np.stack([ids] * 3, -1)), "PNG"), "DATA006", "colours"),
        "16 bits": (as_bytes(Image.fromarray(ids.astype(np.uint16)), "PNG"), "DATA006", "depth"),
        "black and white": (as_bytes(Image.fromarray(ids).convert("1"), "PNG"), "DATA006", "depth"),
        "a JPEG": (as_bytes(Image.fromarray(ids), "JPEG"), "DATA006", "JPEG"),
        "cut": (as_bytes(Image.fromarray(noise), "PNG")[:-120], "DATA007", "whole"),
        "empty": (b"", "DATA009", "empty"),
        "all ignored": (as_bytes(Image.fromarray(ids + np.uint8(255)), "PNG"), "DATA012", "255"),
    }


@pytest.mark.parametrize("fault", broken_masks())
def test_each_broken_mask_has_its_code(tmp_path, classes, make, fault):
    content, expected, word = broken_masks()[fault]
    make.photo(tmp_path / "a.jpg")
    (tmp_path / "m.png").write_bytes(content)
    found = run(tmp_path, classes, mask="m.png")
    assert code(found) == expected
    assert word in found.reason
    assert found.source == "m.png"


def test_mask_that_is_not_there(tmp_path, classes, make):
    make.photo(tmp_path / "a.jpg")
    assert code(run(tmp_path, classes, mask="m.png")) == "DATA008"


def test_pixel_limit_counts_both_sides(tmp_path, classes, make):
    make.photo(tmp_path / "a.jpg", size=(48, 32))
    assert isinstance(run(tmp_path, classes, max_pixels=48 * 32), Checked)
    assert code(run(tmp_path, classes, max_pixels=48 * 32 - 1)) == "DATA010"


def test_name_that_is_no_utf8_is_told_in_utf8(tmp_path, classes, make):
    name = os.fsdecode(b"caf\xe9.jpg")
    make.photo(tmp_path / "plain.jpg").rename(tmp_path / name)
    found = run(tmp_path, classes, name)
    assert isinstance(found, Checked)
    assert found.row.source.encode() == b"caf\\udce9.jpg"


def test_near_duplicates_have_near_perceptual_hashes(tmp_path, classes, make):
    make.photo(tmp_path / "a.jpg", seed=5, size=(160, 120), quality=95)
    Image.open(tmp_path / "a.jpg").resize((80, 60)).save(tmp_path / "b.jpg", quality=40)
    make.photo(tmp_path / "c.jpg", seed=6, size=(160, 120))
    a, b, c = (int(run(tmp_path, classes, f"{n}.jpg").row.phash, 16) for n in "abc")
    assert (a ^ b).bit_count() < (a ^ c).bit_count()


def test_limits_are_those_of_the_settings():
    config = DataConfig(dataset="a", source=Path("a"), max_pixels=7, max_bytes=8, max_aspect=9, formats=("png",))  # pyright: ignore[reportCallIssue]
    assert Limits.of(config) == Limits(7, 8, 9.0, ("png",))
    assert Limits.of(DataConfig(dataset="a", source=Path("a"))) == Limits()  # pyright: ignore[reportCallIssue]


def test_size_of_the_file_is_limited_and_told(tmp_path, classes, make):
    body = make.photo(tmp_path / "a.jpg").read_bytes()
    mask = make.mask(tmp_path / "m.png").read_bytes()
    assert isinstance(run(tmp_path, classes, max_bytes=len(body)), Checked)
    assert code(run(tmp_path, classes, max_bytes=len(body) - 1)) == "DATA014"
    padded = mask[:33] + chunk(b"tEXt", b"a\x00" + bytes(len(body))) + mask[33:]
    (tmp_path / "m.png").write_bytes(padded)
    found = run(tmp_path, classes, mask="m.png", max_bytes=len(padded) - 1)
    assert (code(found), found.source) == ("DATA014", "m.png")


@pytest.mark.parametrize("size", [(30, 1), (1, 30), (7, 7)])
def test_aspect_is_limited_both_ways(tmp_path, classes, make, size):
    make.photo(tmp_path / "a.png", size=size).rename(tmp_path / "a.jpg")
    assert isinstance(run(tmp_path, classes, max_aspect=30.0), Checked)
    if size != (7, 7):
        assert code(run(tmp_path, classes, max_aspect=29.9)) == "DATA015"


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_format_that_is_not_allowed_is_refused_by_what_it_is_not_by_its_name(tmp_path, classes, make, ending):
    make.photo(tmp_path / f"really.{ending}").rename(tmp_path / "a.jpg")
    kind = {"jpg": "jpeg"}.get(ending, ending)
    assert isinstance(run(tmp_path, classes, formats=(kind,)), Checked)
    found = run(tmp_path, classes, formats=tuple({"jpeg", "png"} - {kind}))
    assert code(found) == "DATA002"
    assert kind.upper() in found.reason


def test_mask_that_an_annotation_made_is_counted_and_its_faults_are_the_images(classes, make, tmp_path):
    image, mask = make.photo(tmp_path / "a.jpg").read_bytes(), make.mask(tmp_path / "m.png").read_bytes()
    source = Source(Path("a.jpg"), None, annotation="{}", mask_ids="outlines")
    found = examine(source, Files(image, mask), classes, Limits())
    assert isinstance(found, Checked)
    assert (found.row.supervision, sum(found.row.pixels) + found.row.ignored) == ("mask", 48 * 32)
    wrong = make.mask(tmp_path / "m.png", size=(9, 9)).read_bytes()
    assert examine(source, Files(image, wrong), classes, Limits()).source == "a.jpg"


def test_size_of_the_faulty_file_is_kept(tmp_path, classes, make):
    image, mask = make.photo(tmp_path / "a.jpg"), make.mask(tmp_path / "m.png", size=(9, 9))
    assert run(tmp_path, classes, mask="m.png").bytes == len(mask.read_bytes())
    image.write_bytes(image.read_bytes()[:300])
    assert run(tmp_path, classes).bytes == 300


@pytest.mark.parametrize("orientation", range(1, 9))
def test_brightness_and_size_are_of_the_picture_as_seen(tmp_path, classes, make, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = make.photo(tmp_path / "a.jpg", exif=exif)
    stored = Image.open(path)
    stored.draft("L", stored.size)  # the luma that the JPEG stores
    seen = ImageOps.exif_transpose(stored)
    row = run(tmp_path, classes).row
    assert (row.width, row.height) == seen.size
    assert row.brightness == round(float(np.asarray(seen).mean()), 2)
    assert row.phash == str(imagehash.phash(seen))
