"""The rules of the gate, one function each. All are asked, whatever the others say; docs/gate.md has the why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from semivl.config import GateConfig
from semivl.evaluation.paired import ClassDifferences, Counts, Interval, class_differences, compared, miou_difference
from semivl.evaluation.scores import Scores
from semivl.evaluation.speed import Speeds
from semivl.registry.decision import RuleResult
from semivl.registry.gate_exposure import Exposure

FEW = 2.0
"""images that tell of a class: with no more of them nothing is known of its spread"""
LOST_IN, LOST_TO = 4, 0.2
"""a class is lost where the champion finds it in so many images, and the challenger has but this share of its IoU"""


@dataclass(frozen=True)
class Side:
    """One of the two models, with all that is known of it."""

    scores: Scores
    counts: Counts
    exposure: Exposure


@dataclass(frozen=True)
class Case:
    """What the gate decides on. Without a champion the challenger would be the first."""

    gate: GateConfig
    digest: str
    """of the evaluation images that count"""
    challenger: Side
    champion: Side | None
    speeds: Speeds | None = None
    withdrawn: str | None = None
    """why the challenger was rolled back, if it was champion before"""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.challenger.scores.iou)

    @cached_property
    def iou(self) -> np.ndarray:
        """(N,) the challenger's IoU in points; NaN for a class that the images do not hold."""
        return compared(self.challenger.counts, (self.champion or self.challenger).counts)[0]

    @cached_property
    def lead(self) -> Interval | None:
        """The paired difference of mIoU; the images' digest is the seed, so it is the same every time."""
        if self.champion is None:
            return None
        seed = int(self.challenger.scores.digest.encode().hex(), 16)
        return miou_difference(self.challenger.counts, self.champion.counts, self.gate.confidence, seed)

    @cached_property
    def classes(self) -> ClassDifferences | None:
        return class_differences(self.challenger.counts, self.champion.counts) if self.champion else None


Rule = Callable[[Case], RuleResult | None]


def frozen_images(case: Case) -> RuleResult:
    """GATE001: scores of other images would be another bar."""
    found = case.challenger.scores.digest
    same = found == case.digest
    words = f"scored on {found}" if same else f"scored on images of digest {found}, frozen are {case.digest}"
    return _result("GATE001", "the evaluation images are the frozen set", same, words)


def challenger_unseen(case: Case) -> RuleResult:
    """GATE002: a score on images learned from is of what was learned by heart."""
    return _unseen("GATE002", "challenger", case.challenger.exposure, case.gate)


def champion_unseen(case: Case) -> RuleResult | None:
    """GATE003: neither may the champion, or no challenger could reach its score."""
    return _unseen("GATE003", "champion", case.champion.exposure, case.gate) if case.champion else None


def leads(case: Case) -> RuleResult | None:
    """GATE004: the lower bound of the lead exceeds the margin."""
    if case.lead is None:
        return None
    chance = case.gate.confidence > 0.5
    value, bound = case.lead.low if chance else case.lead.difference, case.gate.margin
    sure = f", with {case.gate.confidence:.0%} confidence above {case.lead.low:+.2f}" if chance else ""
    words = f"a lead of {case.lead.difference:+.2f} mIoU{sure}; wanted: more than {bound:.2f}"
    demand = "the challenger leads by more than the margin" + (", chance allowed for" if chance else "")
    return _result("GATE004", demand, value > bound, words, value, bound)


def keeps_classes(case: Case) -> RuleResult | None:
    """GATE005: no class is ruined, be the mean as it may.

    A class falls where its fall is beyond `class_drop` and no chance: a one-sided t test over its images, at
    1 - confidence shared by all classes (Bonferroni), so that many classes raise no more false alarms than one. A class
    of few images, of which no test could tell, falls where it is as good as lost.
    """
    if case.classes is None:
        return None
    from scipy.stats import t

    fall, images = case.classes.champion - case.classes.challenger, case.classes.images
    judged = np.isfinite(fall) & (images > FEW)
    share = min(1 - case.gate.confidence, 0.05) / max(1, int(judged.sum()))
    least = fall - t.ppf(1 - share, np.maximum(images - 1, 1)) * case.classes.error
    beyond = np.isfinite(fall) & (fall > case.gate.class_drop)
    lost = (case.classes.found >= LOST_IN) & (case.classes.challenger < LOST_TO * case.classes.champion)
    fallen = np.flatnonzero(beyond & ((judged & (least > 0)) | lost))
    worst = float(np.nanmax(fall)) if np.isfinite(fall).any() else None
    words = [f"{case.names[c]} fell by {fall[c]:.1f} to {case.classes.challenger[c]:.1f}" for c in fallen]
    if not words:
        words = ["no class fell by more than chance" if worst is None else f"the largest fall is {worst:.1f}"]
    unsure = np.flatnonzero(beyond & ~np.isin(np.arange(len(fall)), fallen))
    words += [f"{case.names[c]} fell by {fall[c]:.1f}, which can be chance" for c in unsure]
    demand = f"no class falls by more than {case.gate.class_drop:g} points, chance allowed for"
    return _result("GATE005", demand, not len(fallen), "; ".join(words), worst, case.gate.class_drop)


def calibrated(case: Case) -> RuleResult | None:
    """GATE006: it knows how sure it may be."""
    bounds = [case.gate.ece_max]
    if case.champion and case.gate.ece_rise is not None:
        bounds.append(case.champion.scores.ece + case.gate.ece_rise)
    demand = "its calibration error stays in budget"
    return _budget("GATE006", demand, "calibration error {:.2f} points", case.challenger.scores.ece, bounds)


def quick(case: Case) -> RuleResult | None:
    """GATE007: both are timed side by side, since another hour's times are of another machine."""
    value, bounds = case.challenger.scores.ms_per_image, [case.gate.latency_max]
    if case.speeds and case.gate.latency_ratio is not None:
        value = case.speeds.challenger
        bounds.append(case.gate.latency_ratio * value / case.speeds.ratio)
    return _budget("GATE007", "its time for an image stays in budget", "{:.1f} ms an image", value, bounds)


def small(case: Case) -> RuleResult | None:
    """GATE008: it still fits where the champion does."""
    size, bounds = case.challenger.scores.model_bytes / 2**20, [case.gate.size_max]
    if case.champion and case.champion.scores.model_bytes and case.gate.size_ratio is not None:
        bounds.append(case.gate.size_ratio * case.champion.scores.model_bytes / 2**20)
    return _budget("GATE008", "its size stays in budget", "{:.1f} MiB", size, bounds)


def reaches_floor(case: Case) -> RuleResult | None:
    """GATE009: the first champion has nobody to beat."""
    if case.champion:
        return None
    value, bound = float(np.nanmean(case.iou)), case.gate.floor
    words = f"{value:.2f} mIoU, the floor is {bound:.2f}"
    return _result("GATE009", "the first champion reaches the floor", value >= bound, words, value, bound)


def reaches_class_floors(case: Case) -> RuleResult | None:
    """GATE010: classes that must be good; where the champion is not either, it is enough to be no worse."""
    floors = [(name, floor, case.names.index(name)) for name, floor in case.gate.class_floors.items()]
    if not floors:
        return None
    before = case.classes.champion if case.classes else np.full(len(case.iou), np.inf)
    short = [
        f"{name} is not in the images"
        if np.isnan(case.iou[place])
        else f"{name} has {case.iou[place]:.1f}, its floor is {floor:g}"
        for name, floor, place in floors
        if not case.iou[place] >= min(floor, before[place])
    ]
    words = "; ".join(short) or "all of them do"
    return _result("GATE010", "each class that has a floor reaches it", not short, words, float(len(short)), 0.0)


def not_withdrawn(case: Case) -> RuleResult:
    """GATE011: who was rolled back does not come back by itself."""
    words = f"rolled back: {case.withdrawn}" if case.withdrawn else "never rolled back"
    return _result("GATE011", "the challenger was not rolled back", case.withdrawn is None, words)


RULES: tuple[Rule, ...] = (
    frozen_images, challenger_unseen, champion_unseen, leads, keeps_classes, calibrated, quick, small,
    reaches_floor, reaches_class_floors, not_withdrawn,
)  # fmt: skip


def _result(
    code: str, demand: str, met: bool, found: str, value: float | None = None, bound: float | None = None
) -> RuleResult:
    return RuleResult(code=code, demand=demand, met=bool(met), found=found, value=value, bound=bound)


def _unseen(code: str, who: str, exposure: Exposure, gate: GateConfig) -> RuleResult:
    seen = sum(one.exact + one.near for one in exposure.overlaps)
    images = sum(one.images for one in exposure.overlaps)
    told = [f"{one.exact} the same, {one.near} alike in {one.dataset}@{one.snapshot}" for one in exposure.overlaps]
    words = [f"{seen} evaluation images among its training images ({', '.join(told)})"] if seen else []
    words += [name for one in exposure.overlaps for name in one.examples][:5]
    words += [f"not known: {why}" for why in exposure.unknown]
    met = seen == 0 and (not exposure.unknown or gate.unknown_lineage == "accept")
    found = "; ".join(words) or f"none of them among {images} training images"
    return _result(code, f"the {who} was trained on none of the evaluation images", met, found, float(seen), 0.0)


def _budget(code: str, demand: str, unit: str, value: float, bounds: Sequence[float | None]) -> RuleResult | None:
    bound = min((bound for bound in bounds if bound is not None), default=None)
    if bound is None:
        return None
    words = f"{unit.format(value)}, the budget is {bound:.2f}"
    return _result(code, demand, value <= bound, words, value, bound)
