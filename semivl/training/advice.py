"""Which method suits a snapshot: `semivl advise`.

It looks at what the index says - masks, tags, captions, and which classes each of them knows - and climbs the ladder of
supervision (docs/methods.md). Nothing is trained and no picture is opened. The bounds below are judgements, not
measurements: the gate decides in the end, on the evaluation masks.
"""

import re
from typing import TYPE_CHECKING

from semivl.config import Classes, Record
from semivl.data.snapshot import Snapshot
from semivl.data.strength import strengths
from semivl.data.tables import compute, where
from semivl.data.tags import BACKGROUND
from semivl.errors import TrainingError
from semivl.methods.parts.weak_classes import transferable

if TYPE_CHECKING:
    import pyarrow as pa

MANY_CAPTIONS = 500
"""captions below which nothing is advised that learns from captions alone"""
NAMED_OFTEN = 10
"""captions or tags that have to name a class before a model can be expected to know it by them"""


class ClassKnown(Record):
    """How many training samples know a class, and by what."""

    name: str
    masks: int
    tags: int
    captions: int
    """captions with its name or one of its definitions"""


class Known(Record):
    """What the training samples of a snapshot know."""

    train: int
    masked: int
    tagged: int
    """samples without a mask that have tags"""
    complete: int
    """of those, samples whose tags are complete"""
    captioned: int
    """samples with a caption, whatever else they have"""
    classes: tuple[ClassKnown, ...]
    against_transfer: str = ""
    """why method transfer would refuse these samples; empty where it would not"""

    @property
    def unmasked(self) -> int:
        return self.train - self.masked

    @property
    def objects(self) -> tuple[ClassKnown, ...]:
        """The classes without the background, which nobody tags or mentions."""
        return tuple(c for c in self.classes if c.name != BACKGROUND)


class Step(Record):
    """One training that is advised: an experiment on top of the present one."""

    method: str
    why: str
    settings: tuple[str, ...] = ()
    """lines of YAML beside `base` and `method`"""


class Advice(Record):
    """What to train, in this order; a later step has the earlier one's model as its teacher where it says so."""

    known: Known
    steps: tuple[Step, ...]
    cautions: tuple[str, ...]


def known(snapshot: Snapshot) -> Known:
    """What the snapshot's training samples know, by its index."""
    pc, classes = compute(), snapshot.manifest.classes
    train = where(snapshot.index, "split", ["train"])
    tagged = where(train, "supervision", ["tags"])
    by_masks, by_tags = strengths(train, classes).strong, strengths(tagged, classes).weak
    captions = train["caption"].drop_null()
    return Known(
        train=len(train),
        masked=len(where(train, "supervision", ["mask"])),
        tagged=len(tagged),
        complete=pc.sum(tagged["tags_complete"]).as_py() or 0,
        captioned=pc.sum(pc.greater(pc.binary_length(captions), 0)).as_py() or 0,
        classes=tuple(
            ClassKnown(
                name=one.name,
                masks=by_masks.get(one.name, 0),
                tags=by_tags.get(one.name, 0),
                captions=pc.sum(pc.match_substring_regex(captions, _spoken(one.phrases), ignore_case=True)).as_py()
                or 0,
            )
            for one in classes.classes
        ),
        against_transfer=_against_transfer(train, tagged, classes),
    )


def _against_transfer(train: "pa.Table", tagged: "pa.Table", classes: Classes) -> str:
    if BACKGROUND not in classes.names:
        return f"the class map has no class {BACKGROUND}. Add one."
    try:
        transferable(where(train, "supervision", ["mask"]), tagged, classes)
    except TrainingError as error:
        return f"{error.what} {error.remedy}"
    return ""


def _spoken(phrases: tuple[str, ...]) -> str:
    """What finds any of the phrases in a caption, in one or several."""
    return rf"\b(?:{'|'.join(map(re.escape, phrases))})(?:s|es)?\b"


def advised(found: Known, model: str) -> Advice:
    """The methods that suit what is known; `model` is the name under which versions are registered."""
    steps, cautions = _steps(found, model), []
    lost = [c.name for c in found.objects if not c.masks and not c.tags and c.captions < NAMED_OFTEN]
    if lost and steps[0].method != "spatial_grouping":
        cautions.append(
            f"Neither masks nor tags of photos without a mask know {', '.join(lost)}, and hardly a caption names "
            "them: a model may never find them. Draw a few masks, tag some photos, or add the words that captions use "
            "to their definitions."
        )
    few = [c.name for c in found.objects if not c.masks and 0 < c.tags < NAMED_OFTEN]
    if few:
        cautions.append(f"Fewer than {NAMED_OFTEN} photos are tagged with {', '.join(few)}: tag more.")
    if _weak(found) and found.against_transfer:
        weak = ", ".join(c.name for c in _weak(found))
        cautions.append(f"Method transfer would learn {weak} from tags, but not from these: {found.against_transfer}")
    if found.tagged and found.complete < found.tagged:
        cautions.append(
            f"{found.tagged - found.complete:,} of {found.tagged:,} tagged photos have positive-only tags, which rule "
            "nothing out. Where they name all that is there, set data.tags_complete."
        )
    return Advice(known=found, steps=tuple(steps), cautions=tuple(cautions))


def _weak(found: Known) -> list[ClassKnown]:
    """The classes that tags alone know."""
    return [c for c in found.objects if not c.masks and c.tags]


def _steps(found: Known, model: str) -> list[Step]:
    strong, weak = [c for c in found.objects if c.masks], _weak(found)
    named = [c for c in found.objects if c.captions >= NAMED_OFTEN]
    speaks = found.captioned >= MANY_CAPTIONS and 2 * len(named) >= len(found.objects)
    if not found.masked:
        return [_without_masks(found, named, speaks)]
    if not found.unmasked:
        return [Step(method="supervised", why="Every training photo has a mask.")]
    if weak and not found.against_transfer:
        why = (
            f"Masks show {len(strong)} classes, and tags alone know {', '.join(c.name for c in weak)}: what the masks "
            "teach of objects is transferred. `semivl transferability` tells beforehand how well."
        )
        steps = [Step(method="transfer", why=why)]
        return [*steps, _taught(model, "the tagged classes")] if found.unmasked > found.tagged else steps
    only_named = [c for c in named if not c.masks]
    if only_named and speaks:
        why = f"Captions name {', '.join(c.name for c in only_named)}, which no mask shows."
        return [Step(method="co_decomposition", why=why), _taught(model, "the classes without masks")]
    return [_semivl(found)]


def _without_masks(found: Known, named: list[ClassKnown], speaks: bool) -> Step:
    if speaks:
        why = f"There is no mask; {found.captioned:,} captions name {len(named)} of {len(found.objects)} classes."
        return Step(method="co_decomposition", why=why)
    why = "There is no mask, and hardly a caption names the classes: regions are named by the class names alone."
    draw = "Then draw the masks that `semivl label-next` asks for"
    if found.tagged:
        draw += ": with masks of two classes method transfer learns the others from their tags"
    return Step(method="spatial_grouping", why=f"{why} {draw}.")


def _semivl(found: Known) -> Step:
    why = f"{found.masked:,} photos have masks and {found.unmasked:,} have none."
    if found.complete:
        why += f" Complete tags of {found.complete:,} of them bound what it believes (method.settings.tags)."
    return Step(method="semivl", why=why)


def _taught(model: str, what: str) -> Step:
    return Step(
        method="semivl",
        why=f"It learns from all photos, taught {what} by the model before, from the probability on that "
        f"`semivl vlm eval {model}@challenger` advises (method.settings.guidance.threshold). The gate tells which of "
        "both is better.",
        settings=(f"guidance: {{model: {model}@challenger}}",),
    )


def experiment_of(step: Step, base: str) -> tuple[str, str]:
    """File name and content of the experiment that a step is."""
    name = f"{base}-{step.method.replace('_', '-')}"
    return f"conf/experiment/{name}.yaml", "\n".join([f"base: {base}", f"method: {step.method}", *step.settings])
