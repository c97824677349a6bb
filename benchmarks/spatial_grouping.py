"""Spatial grouping (SCG): what groups allow, how regions are best read, what adaptation by captions brings.

    python -m benchmarks.spatial_grouping                              # scenes and the tiny CLIP, nothing learned
    python -m benchmarks.spatial_grouping --adapt --seeds 3            # and adapted by captions
    python -m benchmarks.spatial_grouping --photos FOLDER --own        # voc2012-subset in FOLDER, class names alone
    python -m benchmarks.spatial_grouping --photos FOLDER --vlm photos-spoken --groups-by photos-distilled --own

IoU in points over all pixels; `inside` is the share of object pixels that are named right among the objects. Nothing is
chosen on what is printed but where docs/spatial-grouping.md says so.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.tiny_clip import SIZE, as_batch, fresh_scenes
from semivl.cli.common import named_vlm, show_table
from semivl.config import IGNORE, Config, GroupConfig, MethodConfig, TrainConfig, load
from semivl.data.scenes_compose import scene
from semivl.data.stream import Batches, Captioned
from semivl.evaluation.counting import confusion, iou_points
from semivl.evaluation.groups import majority
from semivl.evaluation.pairs import source_pairs
from semivl.methods import create
from semivl.methods.parts.recogniser import Recogniser
from semivl.nets.encoder import DenseEncoder
from semivl.nets.grouping import group_maps
from semivl.nets.refine import refined
from semivl.nets.regions import RegionSettings, read
from semivl.nets.vlm import DenseVLM, concept_cosines, load_vlm
from semivl.training.step import build_optimizer, take_step

CHUNK = 10
"""photos of a scene's size that are read at once"""
TRAINING_SEED = 1000003
"""of the scenes that are learned from: the tiny CLIP saw scenes of this seed, but other ones"""
UNMENTIONED = 0.35
"""share of the objects that captions leave out"""
READINGS = tuple(
    RegionSettings(how=how, by=by, blocks=blocks)  # pyright: ignore[reportCallIssue, reportArgumentType]
    for how, by, blocks in (
        ("masked", "mean", 1), ("masked", "mean", 2), ("masked", "mean", 3), ("masked", "class", 1),
        ("masked", "class", 3), ("attn_soft", "mean", 1), ("pool", "mean", 1),
    )
)  # fmt: skip
PAINTED = tuple(
    RegionSettings(how="input_dim", by=by, kept=kept)  # pyright: ignore[reportCallIssue, reportArgumentType]
    for by, kept in (("mean", 0.0), ("mean", 0.5), ("class", 0.0))
)
"""a pass for each region"""
ADAPTED: dict[str, dict[str, Any]] = {"one way": {}, "two ways": {"two_way": True}}


class Photos(NamedTuple):
    """Photos with masks and what is to be looked for in them."""

    config: Config
    vlm: DenseVLM
    images: list[Tensor]
    """(1, 3, H, W) in [0, 1] each"""
    masks: list[Tensor]
    """(H, W) int64 each"""

    @property
    def classes(self) -> int:
        return len(self.config.classes)

    @property
    def settings(self) -> Any:
        return create(self.config.method).settings

    @property
    def groups(self) -> GroupConfig:
        return self.settings.groups


class Counted:
    """Pixels by truth and prediction, of everything and of objects among objects."""

    def __init__(self, classes: int) -> None:
        self.table = torch.zeros(classes, classes, dtype=torch.int64)
        self.objects, self.right = 0, 0

    def add(self, labels: Tensor, mask: Tensor) -> None:
        self.table += confusion(mask, labels, len(self.table))

    def add_logits(self, logits: Tensor, mask: Tensor) -> None:
        """Logits (N, H, W); class 0 is background."""
        self.add(logits.argmax(0), mask)
        inside = (mask > 0) & (mask != IGNORE)
        self.objects += int(inside.sum())
        self.right += int((logits[1:].argmax(0) + 1 == mask)[inside].sum())

    @property
    def miou(self) -> str:
        """Over the classes that the masks hold."""
        held = self.table.sum(1).numpy() > 0
        return f"{iou_points(self.table.numpy())[held].mean():.1f}"

    def row(self) -> dict[str, str]:
        return {"mIoU": self.miou, "inside": f"{100 * self.right / max(1, self.objects):.1f}"}


def scenes(count: int) -> Photos:
    config = load("scenes-scg")
    made = fresh_scenes(count)
    masks = [torch.from_numpy(s.mask).long() for s in made]
    vlm = load_vlm(config.vlm, config.classes, SIZE, language=True)
    return Photos(config, vlm, list(as_batch(made).split(1)), masks)


def voc_photos(folder: Path, vlm: str, every: int) -> Photos:
    """Each `every`-th photo of the subset's val list."""
    config = load("photos-scg", {"data": {"source": str((folder / "voc2012-subset").resolve())}})
    pairs = [pair for i, pair in enumerate(source_pairs(config)) if i % every == 0]
    images = [torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255 for photo, _ in pairs]
    masks = [torch.from_numpy(mask.copy()).long() for _, mask in pairs]
    return Photos(config, load_vlm(named_vlm(vlm), config.classes, config.train.crop), images, masks)


def squares(size: tuple[int, int], rows: int, columns: int) -> Tensor:
    """(H, W) int64 groups that know nothing of the photo: a grid of equal squares."""
    down, across = (torch.arange(n) * parts // n for n, parts in zip(size, (rows, columns), strict=True))
    return down[:, None] * columns + across


def bounds(photos: Photos, groupings: dict[str, Callable[[Tensor], Tensor]]) -> list[dict[str, str]]:
    """What each grouping, (1, 3, H, W) to (H, W), allows, and takes."""
    rows = []
    for name, group in groupings.items():
        counted, numbers, since = Counted(photos.classes), [], time.perf_counter()
        maps = [group(image) for image in photos.images]
        taken = time.perf_counter() - since
        for groups, mask in zip(maps, photos.masks, strict=True):
            counted.add(majority(groups, mask, photos.classes), mask)
            numbers.append(len(groups.unique()))
        rows.append({
            "groups": name, "of a photo": f"{np.mean(numbers):.1f}", "highest mIoU": counted.miou,
            "ms a photo": f"{1000 * taken / len(maps):.0f}",
        })  # fmt: skip
    return rows


def groupings(photos: Photos, encoder: DenseEncoder, own: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Squares, and the groupers with the experiment's settings; or the experiment's `own` grouper alone."""
    if own:
        return {f"{photos.groups.grouper}, own": lambda image: group_maps(encoder, image, photos.groups)[0]}
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "squares of 8 pixels": lambda image: squares(_size(image), image.shape[2] // 8, image.shape[3] // 8),
        "12 squares": lambda image: squares(_size(image), 3, 4),
    }
    for grouper in ("spectral", "kmeans", "agglomerative"):
        for count in (12, 24):
            settings = photos.groups.model_copy(update={"grouper": grouper, "count": count})
            name = f"{grouper}, at most {count}"
            found[name] = lambda image, settings=settings: group_maps(encoder, image, settings)[0]
    return found


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[2], image.shape[3]


def dense_logits(photos: Photos) -> list[Tensor]:
    """(1, N, H, W) of each photo: scaled cosines of the dense map with each class's best definition."""
    text, encoder = photos.vlm.required_text("this benchmark"), photos.vlm.encoder.eval()
    found = []
    for image in photos.images:
        cosines = concept_cosines(encoder(image), text.phrases, text.phrase_class, photos.classes)
        cosines = F.interpolate(cosines, size=_size(image), mode="bilinear", align_corners=False)
        found.append(photos.settings.naming.scale * cosines)
    return found


def dense_rows(photos: Photos, maps: list[Tensor]) -> list[dict[str, str]]:
    """The dense map by itself, and evened out over groups."""
    plain, evened = Counted(photos.classes), Counted(photos.classes)
    for logits, groups, mask in zip(dense_logits(photos), maps, photos.masks, strict=True):
        plain.add_logits(logits[0], mask)
        evened.add_logits(refined(logits, groups[None], 1.0)[0], mask)
    whole = {"mIoU mixed": "-", "inside mixed": "-"}
    return [
        {"named by": "dense map"} | plain.row() | whole,
        {"named by": "dense map refined by groups"} | evened.row() | whole,
    ]


def region_rows(photos: Photos, maps: list[Tensor], readings: Iterable[RegionSettings]) -> list[dict[str, str]]:
    """Regions by each reading: group scores alone, and mixed with the dense map as the method does."""
    rows = []
    for reading in readings:
        settings = photos.config.method.settings | {"regions": reading.model_dump()}
        alone, mixed = named(photos, photos.vlm, settings, maps)
        row = {"named by": named_reading(reading)} | alone.row()
        rows.append(row | {f"{name} mixed": value for name, value in mixed.row().items()})
        print(rows[-1], flush=True)
    return rows


def named_reading(reading: RegionSettings) -> str:
    tail = f"kept {reading.kept:g}" if reading.how == "input_dim" else f"last {reading.blocks}"
    return f"{reading.how}, {reading.by}, {tail}"


def named(photos: Photos, vlm: DenseVLM, settings: dict[str, Any], maps: list[Tensor]) -> tuple[Counted, Counted]:
    """What the method reaches given the groups: by their scores alone, and mixed with the dense map."""
    model = create(MethodConfig(name="spatial_grouping", settings=settings)).build(photos.config.classes, vlm, False)
    model.eval()
    assert isinstance(model, Recogniser)
    namings = [model.naming.model_copy(update={"dense": share}) for share in (0.0, model.naming.dense)]
    counted = (Counted(photos.classes), Counted(photos.classes))
    for image, groups, mask in zip(photos.images, maps, photos.masks, strict=True):
        reading = model.read(image, groups[None])
        for naming, found in zip(namings, counted, strict=True):
            model.naming = naming
            found.add_logits(model.logits(image, groups[None], reading)[0], mask)
    return counted


def speed(photos: Photos) -> list[dict[str, str]]:
    """Seconds of one pass and of painted photos at 12 groups, in one run."""
    encoder, rows = photos.vlm.encoder.eval(), []
    assert isinstance(encoder, DenseEncoder)
    images = torch.cat(photos.images[:CHUNK])
    groups = squares(_size(images), 3, 4).expand(len(images), -1, -1)
    for by in ("mean", "class"):
        taken = {}
        for how in ("masked", "input_dim", "masked", "input_dim"):  # the first round warms up
            since = time.perf_counter()
            read(encoder, images, groups, 12, RegionSettings(how=how, by=by, blocks=1))  # pyright: ignore
            taken[how] = time.perf_counter() - since
        ratio = taken["input_dim"] / taken["masked"]
        rows.append({
            "by": by, "one pass, ms a photo": f"{1000 * taken['masked'] / len(images):.1f}",
            "painted": f"{1000 * taken['input_dim'] / len(images):.1f}", "ratio": f"{ratio:.1f}",
        })  # fmt: skip
    return rows


class Captions(NamedTuple):
    """Captioned scenes and their groups."""

    images: Tensor
    """(I, 3, S, S) uint8"""
    captions: list[str]
    maps: Tensor
    """(I, S, S) int64"""


def captioned(count: int, encoder: DenseEncoder, groups: GroupConfig) -> Captions:
    """Scenes of several objects, some of which their captions leave out."""
    made = [scene(TRAINING_SEED, "unlabelled", i, SIZE, mentioned=1 - UNMENTIONED) for i in range(count)]
    images = as_batch(made)
    maps = torch.cat([group_maps(encoder, chunk, groups) for chunk in images.split(CHUNK)])
    return Captions((255 * images).round().byte(), [one.caption for one in made], maps)


def adapted(photos: Photos, data: Captions, adapt: dict[str, Any], train: TrainConfig) -> DenseVLM:
    """The model with an encoder that learned from crops of the captioned scenes, half of a batch mirrored."""
    settings = photos.config.method.settings | {"adapt": adapt}
    method = create(MethodConfig(name="spatial_grouping", settings=settings))
    torch.manual_seed(train.seed)
    model = method.build(photos.config.classes, photos.vlm, training=True).train()
    optimizer, random = build_optimizer(model, train), np.random.default_rng(train.seed)
    for step in range(train.steps):
        chosen = torch.from_numpy(random.choice(len(data.images), train.batch, replace=False))
        top, left = random.integers(0, SIZE - train.crop + 1, 2)
        seen = slice(top, top + train.crop), slice(left, left + train.crop)
        half = train.batch // 2
        images, maps = (
            torch.cat([every[chosen[:half]], every[chosen[half:]].flip(-1)])[(..., *seen)]
            for every in (data.images, data.maps)
        )
        captions = tuple(data.captions[i] for i in chosen.tolist())
        batch = Batches(captioned=Captioned(images, torch.zeros_like(maps, dtype=torch.bool), captions, maps))
        losses = take_step(method, model, optimizer, batch, train, step)
        if step % 50 == 0 or step == train.steps - 1:
            print(f"step {step}: " + ", ".join(f"{k} {v:.3f}" for k, v in losses.items()), flush=True)
    return replace(photos.vlm, encoder=model.get_submodule("encoder").eval())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--painted", action="store_true", help="read painted photos too, which takes long")
    parser.add_argument("--own", action="store_true", help="the experiment's own groups and reading, no others")
    parser.add_argument("--adapt", action="store_true", help="adapt by captions too")
    parser.add_argument("--captioned", type=int, default=800, help="scenes to adapt by")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--photos", type=Path, help="folder with voc2012-subset, in place of the scenes")
    parser.add_argument("--vlm", default="photos-distilled", help="of the photos")
    parser.add_argument("--groups-by", help="model whose keys group, in place of the photos' own: a guide has none")
    parser.add_argument("--every", type=int, default=1, help="of the photos, only each so manieth")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        photos = voc_photos(options.photos, options.vlm, options.every) if options.photos else scenes(options.scenes)
        encoder = photos.vlm.encoder
        if options.groups_by:
            encoder = load_vlm(named_vlm(options.groups_by), photos.config.classes, photos.config.train.crop).encoder
        encoder.eval()
        assert isinstance(encoder, DenseEncoder)
        show_table(
            bounds(photos, groupings(photos, encoder, options.own)), f"what groups allow, {len(photos.images)} photos"
        )
        maps = [group_maps(encoder, image, photos.groups)[0] for image in photos.images]
        rows = dense_rows(photos, maps)
        if not options.groups_by:
            several = READINGS + (PAINTED if options.painted else ())
            rows += region_rows(photos, maps, [photos.settings.regions] if options.own else several)
        show_table(rows, "named with class names alone")
        if not options.photos:
            show_table(speed(photos), "12 groups")
    if options.adapt:
        adaptation(photos, maps, options)


def adaptation(photos: Photos, maps: list[Tensor], options: argparse.Namespace) -> None:
    """Prints what adaptation by captions brings, seed by seed."""
    config = load("scenes-scg-adapted")
    encoder = photos.vlm.encoder
    assert isinstance(encoder, DenseEncoder)
    with torch.no_grad():
        data = captioned(options.captioned, encoder, photos.groups)
    before = named(photos, photos.vlm, photos.config.method.settings, maps)[1].row()
    rows = [{"adapted": "no", "seed": "-"} | before]
    for name, change in ADAPTED.items():
        for seed in range(options.seeds):
            train = config.train.model_copy(update={"seed": seed, "steps": options.steps})
            vlm = adapted(photos, data, config.method.settings["adapt"] | change, train)
            with torch.no_grad():
                found = named(photos, vlm, photos.config.method.settings, maps)[1].row()
            rows.append({"adapted": name, "seed": str(seed)} | found)
            print(rows[-1], flush=True)
    show_table(rows, f"adapted by {options.captioned} captioned scenes, {options.steps} steps")


if __name__ == "__main__":
    main()
