"""What a guide knows of labelled images, and how far its labels can be trusted: `semivl vlm eval`.

Everything is measured as dense guidance has it (spec semivl.md, 2.6): cosines of every patch with the definitions of
every class, the best of them, upsampled to the mask, softmax of `scale` times that. A text encoder of another kind
wants another scale than CLIP's 100, so a few are tried: the labels are the same at each, their confidence is not. A
finished model that is to guide is measured by its own probabilities, at scale 1.

Shares are from 0 to 1, of labelled pixels: 255 is ignored, and a photo of nothing else is not counted. `foreground` is
every class but one named `background`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.config import IGNORE, Classes, EvaluationConfig, Record
from semivl.data.tags import BACKGROUND
from semivl.errors import RegistryError
from semivl.evaluation.scores import confusion, iou_points
from semivl.evaluation.window import Predict, sliding_logits
from semivl.methods import as_planes
from semivl.nets.encoder import Features
from semivl.nets.vlm import DenseVLM, concept_cosines

SCALES = (5.0, 10.0, 20.0, 40.0, 100.0)
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
WANTED_PRECISION, LEAST_COVERAGE, FALLBACK_COVERAGE = 0.8, 0.01, 0.05
_QUARTER_SCALE = 20.0
"""of cosines, at which the most confident quarter is chosen"""
_EDGES = torch.cat([torch.sigmoid(torch.linspace(-8, 13, 2101)), torch.tensor(THRESHOLDS)]).unique()
"""of the histograms of confidence: close together where confidence nears 1"""
Pair = tuple[np.ndarray, np.ndarray]
"""photo (H, W, 3) and mask (H, W) of class ids, both uint8"""


class Confident(Record):
    """What holds where the largest probability reaches a threshold."""

    scale: float
    threshold: float
    coverage: float
    """share of the pixels"""
    accuracy: float
    """right ones among them"""
    foreground: float
    """share of the pixels that are confident and called foreground"""
    precision: float | None
    """right ones among those; None where there are none"""


class LanguageScores(Record):
    """What a VLM reaches. `None`: nothing to measure it on."""

    images: int
    top_1: float | None
    """images whose embedding (the encoder's own of the whole, else the mean of the patches') names the foreground
    class with the most pixels, among foreground classes; None for a finished model, which embeds none"""
    naming: float | None
    """true foreground pixels named right, among foreground classes"""
    naming_quarter: float | None
    """the same for the most confident quarter of them"""
    strict: float | None
    """right ones among the most confident quarter of the pixels called foreground, all classes open"""
    tagged: float | None
    """the same where the classes that the image holds are given"""
    miou: float | None
    """in points, over the classes that the masks hold"""
    iou: dict[str, float | None]
    """None for a class that no mask holds, whether it is called or not"""
    curve: tuple[Confident, ...]
    """every scale at every threshold"""
    advice: Confident | None
    """scale and threshold for guidance, see `advised`"""


class Tally(NamedTuple):
    """Histograms of confidence, (bins,) int64 each: all pixels of a kind, and the right ones among them."""

    all: Tensor
    right: Tensor

    def add(self, confidence: Tensor, right: Tensor) -> None:
        """Counts pixels by confidence, (P,) float and (P,) bool."""
        place = torch.bucketize(confidence, _EDGES, right=True)
        self.all.add_(torch.bincount(place, minlength=len(self.all)))
        self.right.add_(torch.bincount(place[right], minlength=len(self.all)))

    def reaching(self, threshold: float) -> tuple[int, int]:
        """Pixels whose confidence reaches one of THRESHOLDS, and the right ones."""
        first = int(torch.searchsorted(_EDGES, torch.tensor(threshold))) + 1
        return int(self.all[first:].sum()), int(self.right[first:].sum())

    def best(self, share: float) -> float | None:
        """Share of right ones among the most confident `share` of all; of the last bin needed, its part."""
        every, right = self.all.flip(0).double(), self.right.flip(0).double()
        wanted = share * every.sum()
        if wanted == 0:
            return None
        before = every.cumsum(0) - every
        part = ((wanted - before) / every.clamp(min=1)).clamp(0, 1)
        return float((part * right).sum() / wanted)


def tally() -> Tally:
    """An empty one."""
    return Tally(*(torch.zeros(len(_EDGES) + 1, dtype=torch.int64) for _ in range(2)))


@torch.inference_mode()
def measure(
    vlm: DenseVLM, classes: Classes, pairs: Iterable[Pair], short_side: int | None = None, scales: tuple = SCALES
) -> LanguageScores:
    """The VLM's scores on photos with masks.

    Args:
        short_side: photos are resized to it before they are encoded; None: encoded as they are.

    Raises:
        ConfigError: CONF018, the VLM has no text.
        RegistryError: REG003, not one labelled pixel.
    """
    text = vlm.required_text("semivl vlm eval")
    encoder = vlm.encoder.eval()
    counted = _Counted(classes, scales, _QUARTER_SCALE)
    for photo, mask in pairs:
        image = as_planes(photo)[None]
        if short_side:
            factor = short_side / min(image.shape[-2:])
            image = F.interpolate(image, scale_factor=factor, mode="bilinear", antialias=True)
        features: Features = encoder(image)
        dense = concept_cosines(features, text.phrases, text.phrase_class, len(classes))
        own = getattr(encoder, "whole", None)
        embedded = (
            own(image)[:, :, None, None] if own else F.normalize(features.dense.mean((2, 3), keepdim=True), dim=1)
        )
        whole = concept_cosines(Features(embedded, ()), text.phrases, text.phrase_class, len(classes))
        counted.add(dense, torch.from_numpy(mask.copy()).long(), whole.flatten())
    return counted.scores()


@torch.inference_mode()
def measure_model(
    predict: Predict, classes: Classes, pairs: Iterable[Pair], config: EvaluationConfig
) -> LanguageScores:
    """The scores of a finished model on photos with masks, by the mean of the logits of `config`'s windows.

    Raises:
        RegistryError: REG003, not one labelled pixel.
    """
    counted, config = _Counted(classes, (1.0,), 1.0), config.model_copy(update={"mode": "average_logits"})
    for photo, mask in pairs:
        logits = sliding_logits(predict, as_planes(photo), len(classes), config)
        counted.add(logits[None], torch.from_numpy(mask.copy()).long())
    return counted.scores()


class _Counted:
    """What was counted so far."""

    def __init__(self, classes: Classes, scales: tuple[float, ...], quarter_scale: float) -> None:
        self.classes, self.scales, self.quarter_scale = classes, scales, quarter_scale
        self.foreground = torch.tensor([name != BACKGROUND for name in classes.names])
        self.images, self.pixels = 0, 0
        self.objects, self.objects_right = 0, 0
        self.confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        self.naming, self.strict, self.tagged = tally(), tally(), tally()
        self.every = {scale: tally() for scale in scales}
        self.called = {scale: tally() for scale in scales}

    def add(self, dense: Tensor, mask: Tensor, whole: Tensor | None = None) -> None:
        """Cosines or logits (1, N, h, w), the mask (H, W), and (N,) cosines of the whole image."""
        labelled = mask != IGNORE
        if not labelled.any():
            return
        cosines = F.interpolate(dense, size=mask.shape, mode="bilinear", align_corners=False)[0][:, labelled]
        truth, background = mask[labelled], ~self.foreground
        self.images += 1
        self.pixels += len(truth)
        best, named = cosines.max(0)
        self.confusion += confusion(truth, named, len(self.classes))
        right, called = named == truth, self.foreground[named]
        for scale in self.scales:
            sure = _confidence(scale, cosines, best)
            self.every[scale].add(sure, right)
            self.called[scale].add(sure[called], right[called])
        self.strict.add(_confidence(self.quarter_scale, cosines, best)[called], right[called])
        present = torch.bincount(truth, minlength=len(self.classes)) > 0
        known = cosines[present | background]
        best, named = known.max(0)
        named = (present | background).nonzero()[:, 0][named]
        called = self.foreground[named]
        self.tagged.add(_confidence(self.quarter_scale, known, best)[called], (named == truth)[called])
        objects = cosines[self.foreground][:, self.foreground[truth]]
        best, named = objects.max(0)
        right = self.foreground.nonzero()[:, 0][named] == truth[self.foreground[truth]]
        self.naming.add(_confidence(self.quarter_scale, objects, best), right)
        largest = torch.bincount(truth, minlength=len(self.classes)).masked_fill(background, 0)
        if largest.sum() and whole is not None:
            self.objects += 1
            self.objects_right += int(whole.masked_fill(background, -torch.inf).argmax() == largest.argmax())

    def scores(self) -> LanguageScores:
        if not self.pixels:
            raise RegistryError("REG003", "there is no labelled pixel to measure on.", "Name images with masks.")
        table = self.confusion.numpy()
        points = np.where(table.sum(1) > 0, iou_points(table), np.nan)
        curve = tuple(self._at(scale, threshold) for scale in self.scales for threshold in THRESHOLDS)
        return LanguageScores(
            images=self.images,
            top_1=self.objects_right / self.objects if self.objects else None,
            naming=self.naming.best(1.0),
            naming_quarter=self.naming.best(0.25),
            strict=self.strict.best(0.25),
            tagged=self.tagged.best(0.25),
            miou=float(np.nanmean(points)),
            iou={n: None if np.isnan(v) else float(v) for n, v in zip(self.classes.names, points, strict=True)},
            curve=curve,
            advice=advised(curve),
        )

    def _at(self, scale: float, threshold: float) -> Confident:
        covered, right = self.every[scale].reaching(threshold)
        called, called_right = self.called[scale].reaching(threshold)
        return Confident(
            scale=scale,
            threshold=threshold,
            coverage=covered / self.pixels,
            accuracy=right / max(1, covered),
            foreground=called / self.pixels,
            precision=called_right / called if called else None,
        )


def _confidence(scale: float, cosines: Tensor, best: Tensor) -> Tensor:
    """(P,) the largest probability of the softmax of scaled cosines (N, P), whose largest is `best`."""
    return 1 / (scale * (cosines - best)).exp_().sum(0)


def tables(scores: LanguageScores) -> dict[str, list[dict[str, str]]]:
    """The scores as tables to print, by title."""
    advice = scores.advice

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    known = {
        "images": str(scores.images),
        "top-1": share(scores.top_1),
        "naming": share(scores.naming),
        "its surest quarter": share(scores.naming_quarter),
        "strict": share(scores.strict),
        "with tags": share(scores.tagged),
        "mIoU": "-" if scores.miou is None else f"{scores.miou:.1f}",
    }
    shown = scores.curve if advice is None else [p for p in scores.curve if p.scale == advice.scale]
    curve = [
        {
            "scale": f"{p.scale:g}",
            "confidence": f">= {p.threshold:g}",
            "coverage": share(p.coverage),
            "accuracy": share(p.accuracy),
            "called foreground": share(p.foreground),
            "precision": share(p.precision),
        }
        for p in shown
    ]
    settings = "no threshold can be advised: too little is called foreground"
    if advice:
        settings = f"scale={advice.scale:g} threshold={advice.threshold:g} (precision {share(advice.precision)})"
    iou = [{"class": n, "IoU": "absent" if v is None else f"{v:.1f}"} for n, v in scores.iou.items()]
    return {"": [known], "classes": iou, "confidence": curve, "advice": [{"guidance settings": settings}]}


def advised(curve: Iterable[Confident]) -> Confident | None:
    """The scale and threshold that guidance should have.

    Of each scale the lowest threshold at which the pixels called foreground are right WANTED_PRECISION of the time
    and are LEAST_COVERAGE of all; of those the one that covers most. Where no threshold does it: the best precision
    at FALLBACK_COVERAGE or more; None where even that much is never called foreground.
    """
    by_scale: dict[float, list[Confident]] = {}
    for point in curve:
        by_scale.setdefault(point.scale, []).append(point)
    good = [
        next((p for p in sorted(points, key=lambda p: p.threshold) if _reaches(p)), None)
        for points in by_scale.values()
    ]
    found = [p for p in good if p]
    if found:
        return max(found, key=lambda p: p.foreground)
    wide = [p for points in by_scale.values() for p in points if p.foreground >= FALLBACK_COVERAGE]
    return max(wide, key=lambda p: p.precision or 0.0) if wide else None


def _reaches(point: Confident) -> bool:
    return (point.precision or 0.0) >= WANTED_PRECISION and point.foreground >= LEAST_COVERAGE
