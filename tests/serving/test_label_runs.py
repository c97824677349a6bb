"""Run lengths are those that the tools write and read: held against decoders written down from what is published."""

from contextlib import suppress

import numpy as np
import pytest

from semivl.serving.label_rle import RunLengthError, box_runs, brush, from_box_runs, from_brush


def published_decoder(packed: list[int]) -> list[int]:
    """thi.ng's rle-pack, as its README has it, on a text of bits."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total = read(32)
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        out += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    return out


def published_encoder(values: list[int]) -> list[int]:
    """Pieces of values one by one, as a tool writes what has no runs."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for first in range(0, len(values), 256):
        piece = values[first : first + 256]
        bits += f"0{2:02b}{len(piece) - 1:08b}" + "".join(f"{value:08b}" for value in piece)
    return as_bytes(bits)


def as_bytes(bits: str) -> list[int]:
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


TOO_MUCH = as_bytes(f"{13 * 17 * 4:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + f"1{3:02b}{1023:016b}{255:08b}")
REGIONS = [
    np.random.default_rng(0).random((13, 17)) < 0.5,
    np.zeros((5, 7), bool),
    np.ones((9, 4), bool),
    np.ones((200, 300), bool),  # one run of 240,000 values, more than a piece may have
    np.pad(np.ones((60, 80), bool), ((30, 10), (5, 15))),
    np.eye(33, dtype=bool),
]


@pytest.mark.parametrize("region", REGIONS, ids=lambda r: f"{r.shape[0]}x{r.shape[1]}")
def test_a_brush_is_what_the_published_decoder_reads(region):
    values = np.array(published_decoder(brush(region)), np.uint8).reshape(*region.shape, 4)
    assert (values[..., 3] == 255 * region).all()
    assert (from_brush(brush(region), *region.shape) == region).all()


def test_what_a_canvas_writes_is_read_by_its_opacity():
    canvas = np.random.default_rng(1).integers(0, 256, (11, 19, 4), dtype=np.uint8)
    packed = published_encoder(canvas.ravel().tolist())
    assert published_decoder(packed) == canvas.ravel().tolist()
    assert (from_brush(packed, 11, 19) == (canvas[..., 3] >= 128)).all()


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (None, "no list of bytes"),
        (10**12, "no list of bytes"),
        ("abc", "no list of bytes"),
        ([256], "no list of bytes"),
        ([-1, 3], "no list of bytes"),
        ([1.5], "no list of bytes"),
        ([], "breaks off"),
        (brush(REGIONS[0])[:-2], "breaks off"),
        (brush(np.ones((17, 14), bool)), "not those of 17 x 13 pixels"),
        ([0xFF] * 64, "bits, not 8"),
        (TOO_MUCH, "more than the picture has"),
    ],
)
def test_bytes_that_are_no_brush_of_the_picture_are_refused(packed, why):
    with pytest.raises(RunLengthError, match=why):
        from_brush(packed, 13, 17)


def test_no_bytes_whatever_end_otherwise_than_in_a_region_or_a_refusal():
    random = np.random.default_rng(2)
    for _ in range(300):
        packed = brush(REGIONS[0])
        for place in random.integers(0, len(packed), 3):
            packed[place] = int(random.integers(0, 256))
        with suppress(RunLengthError):
            assert from_brush(packed, 13, 17).shape == (13, 17)


@pytest.mark.parametrize("region", [r for r in REGIONS if r.any()], ids=lambda r: f"{r.shape[0]}x{r.shape[1]}")
def test_cvats_runs_are_counts_of_outside_and_inside_in_the_box(region):
    counts, (left, top, width, height) = box_runs(region)
    flat = [bool(i % 2) for i, count in enumerate(counts) for _ in range(count)]
    drawn = {(top + i // width, left + i % width) for i, inside in enumerate(flat) if inside}
    assert drawn == {(int(y), int(x)) for y, x in np.argwhere(region)}
    assert len(flat) == width * height
    assert (from_box_runs(counts, (left, top, width, height), *region.shape) == region).all()


@pytest.mark.parametrize(
    ("counts", "box", "why"),
    [
        ([1, 3], (0, 0, 2, 3), "do not fill"),
        ([7, -1], (0, 0, 2, 3), "do not fill"),
        ([10**18], (0, 0, 2, 3), "do not fill"),
        ([0, 6], (3, 0, 2, 3), "leaves the picture"),
        ([0, 6], (-1, 0, 2, 3), "leaves the picture"),
        ([0], (0, 0, 0, 0), "leaves the picture"),
    ],
)
def test_runs_that_do_not_fit_their_box_are_refused(counts, box, why):
    with pytest.raises(RunLengthError, match=why):
        from_box_runs(counts, box, 3, 4)
