"""Slices are the images that have something in common, with the score of these images alone."""

import numpy as np
import pyarrow as pa
import pytest

from semivl.data.cache import ShardCache
from semivl.data.sample import Row
from semivl.data.snapshot import Snapshot
from semivl.evaluation.evaluate import evaluate
from semivl.evaluation.slices import LEAST, OTHER, Slice, rarest_classes, slices, sources
from tests.evaluation.conftest import NAMES, ColourPredictor


def row(number: int, **values) -> Row:
    given = {
        "key": f"{number:016x}", "shard": "s", "image_offset": 0, "image_bytes": 1, "mask_offset": 0, "mask_bytes": 1,
        "sha256": "", "mask_sha256": "", "phash": "", "width": 10, "height": 10, "orientation": 1, "split": "val",
        "supervision": "mask", "tags": (), "tags_complete": False, "caption": None, "pixels": (1, 0), "ignored": 0,
        "brightness": 9.0, "source": f"images/{number}.jpg",
    }  # fmt: skip
    return Row(**(given | values))


def table(ious: list[float], rarest: list[str | None] | None = None) -> pa.Table:
    """Of images with two classes, the second nowhere, the first with that IoU in 100 pixels."""
    return pa.table(
        {
            "intersections": [[round(iou), 0] for iou in ious],
            "unions": [[100, 0]] * len(ious),
            "rarest_class": pa.array(rarest or [None] * len(ious), pa.string()),
        }
    )


def of(kind: str, found: tuple[Slice, ...]) -> dict[str, tuple[int, float | None]]:
    return {s.name: (s.images, s.miou) for s in found if s.kind == kind}


def test_thirds_of_size_and_brightness_name_their_bounds() -> None:
    rows = [row(i, width=10 * (1 + i // 6), brightness=float(i)) for i in range(18)]
    found = slices(rows, table([10.0] * 6 + [20.0] * 6 + [60.0] * 6))
    assert of("image size", found) == {
        "small: up to 100 pixels": (6, 10.0),
        "medium: over 100, up to 200 pixels": (6, 20.0),
        "large: over 200 pixels": (6, 60.0),
    }
    assert [s.name for s in found if s.kind == "brightness"] == [
        "dark: up to 5 of 255", "medium: over 5, up to 11 of 255", "bright: over 11 of 255",
    ]  # fmt: skip


def test_small_slices_are_joined_and_an_image_counts_there_once() -> None:
    tags = [("day",)] * LEAST + [("night", "rain"), ("night",), ("fog", "fog")]
    found = of("tag", slices([row(i, tags=t) for i, t in enumerate(tags)], table([50.0] * len(tags))))
    assert found == {"day": (LEAST, 50.0), OTHER: (3, 50.0)}


def test_an_image_is_in_the_slice_of_each_of_its_tags() -> None:
    tags = [("day", "rain")] * LEAST + [("rain",)] * LEAST + [()] * LEAST
    found = of("tag", slices([row(i, tags=t) for i, t in enumerate(tags)], table([50.0] * len(tags))))
    assert {name: images for name, (images, _) in found.items()} == {"day": 5, "rain": 10, "no tag": 5}


def test_a_kind_that_does_not_tell_images_apart_is_left_out() -> None:
    assert slices([row(i) for i in range(20)], table([50.0] * 20)) == ()
    assert slices([row(i, tags=(f"t{i}",)) for i in range(20)], table([50.0] * 20)) == ()


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/x/1.jpg", "a/y/2.jpg"], ["x", "y"]),
        (["val/1.jpg", "2.jpg"], ["val", "no folder"]),
        (["JPEGImages/2007_01.jpg", "JPEGImages/2008-02.jpg"], ["2007", "2008"]),
        (["one.jpg"], ["one"]),
    ],
)
def test_the_source_is_the_first_folder_that_differs_else_the_names_prefix(paths: list, expected: list) -> None:
    assert sources(paths) == expected


def test_rare_classes_are_the_last_third_of_the_training_masks(snapshot: Snapshot) -> None:
    """Of five classes one is rare: unicorn, which no mask holds. Without it, it is one of the colours."""
    rows = list(snapshot.rows("val"))
    assert rarest_classes(snapshot, rows) == [None] * len(rows)
    pixels = np.sum([r.pixels for r in snapshot.rows("train", "mask")], 0)
    assert pixels[NAMES.index("unicorn")] == 0


def test_every_slice_has_the_score_of_its_images(
    predictor: ColourPredictor, snapshot: Snapshot, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semivl.evaluation.slices.LEAST", 3)
    found = evaluate(predictor, snapshot, cache)  # pyright: ignore[reportArgumentType]
    small = next(s for s in found.scores.slices if s.name.startswith("small: up to "))
    bound = int(small.name.removeprefix("small: up to ").removesuffix(" pixels").replace(",", ""))
    rows = [r for r in found.per_image.to_pylist() if r["width"] * r["height"] <= bound]
    assert len(rows) == small.images
    ious = np.sum([r["intersections"] for r in rows], 0) / np.maximum(np.sum([r["unions"] for r in rows], 0), 1)
    assert small.miou == pytest.approx(100 * ious[:4].mean())
