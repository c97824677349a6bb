"""How well "what is an object" carries over to classes without masks, told before anything else is trained.

A class with masks is left out: a label net learns from the photos without it, and finds the foreground in the photos
with it (spec transfer.md, 7). That is what it will have to do for the classes that have tags alone.
"""

from collections.abc import Callable, Sequence
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Config, EvaluationConfig, Record
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image, decode_mask
from semivl.data.samples import Samples
from semivl.data.snapshot import Snapshot
from semivl.data.stream import Batches, Steps
from semivl.data.strength import strengths
from semivl.data.tables import compute
from semivl.data.tags import BACKGROUND, TagReader
from semivl.errors import ConfigError, TrainingError
from semivl.evaluation.window import segment
from semivl.methods import LEARNER, Losses, Method, as_planes, create
from semivl.methods.parts.label_transfer import LabelTransferSettings, learned_from
from semivl.methods.parts.weak_classes import require_transferable
from semivl.methods.transfer import Transfer
from semivl.nets.label_net import LabelNet
from semivl.nets.vlm import load_vlm
from semivl.training.step import build_optimizer, take_step
from semivl.training.trainer import chosen_device

SAID_EVERY = 50
"""steps between lines that say how it goes"""
Tell = Callable[[str], None]


class Transferability(Record):
    """What label nets make of classes that they never saw a mask of."""

    dataset: str
    snapshot: str
    steps: int
    """of each label net"""
    iou: dict[str, float]
    """points, by the class left out: its pixels against the background, those of other classes left out"""
    images: dict[str, int]
    """photos with the class that it was measured on"""
    untested: dict[str, str]
    """classes that could not be left out, and why"""
    mean: float
    spread: float
    """standard deviation; 0 where one class was tested"""


class ObjectsAlone(Method):
    """The first phase of method transfer without its classifier."""

    def __init__(self, settings: LabelTransferSettings, share: float) -> None:
        """`share`: of the steps that the phase takes."""
        super().__init__(settings)
        self.share = share
        self.restarts = (share,)

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        assert batches.labelled is not None
        net = model.get_submodule(f"{LEARNER}labels")
        assert isinstance(net, LabelNet)
        return learned_from(net, batches.labelled, None, self.settings, progress >= self.share * self.settings.warm_up)


def transferability(
    config: Config, snapshot: Snapshot, cache: ShardCache, tell: Tell, most_images: int = 100
) -> Transferability:
    """The foreground's IoU on each class with masks by a label net that never saw one of them.

    Args:
        most_images: photos of a class that it is measured on, at the most.

    Raises:
        ConfigError: CONF062 the experiment's method is not transfer, CONF060 no class is the background.
        TrainingError: TRAIN040 fewer than two classes of objects have masks, TRAIN043 none could be left out.
    """
    method = create(config.method)
    if not isinstance(method, Transfer):
        what = f"{config.name} is an experiment of method {config.method.name}, which has no label net."
        raise ConfigError("CONF062", what, "Name an experiment of method transfer.")
    labelled, classes = snapshot.rows("train", "mask"), snapshot.manifest.classes
    known = strengths(snapshot.rows("train").table, classes)
    require_transferable(known._replace(unknown=()))
    steps = max(1, round(method.settings.first_phase * config.train.steps))
    iou: dict[str, float] = {}
    images: dict[str, int] = {}
    untested: dict[str, str] = {}
    for name in (n for n in known.strong if n != BACKGROUND):
        without, with_it = parted(labelled, classes.names.index(name))
        if not len(without):
            untested[name] = "every mask shows it"
            continue
        tell(f"without {name}: {len(without)} masks to learn from, {len(with_it)} with it")
        net = learned_alone(config, method, without, cache, steps, tell)
        shown = with_it[:most_images]
        iou[name] = foreground_iou(net, shown, classes.names.index(name), cache, config.evaluation)
        images[name] = len(shown)
        tell(f"without {name}: foreground IoU {iou[name]:.1f} on {images[name]} photos of it")
    if not iou:
        what = f"every mask of {snapshot.manifest.dataset} shows all of {', '.join(untested)}: none can be left out."
        raise TrainingError("TRAIN043", what, "Draw masks of photos that show some of these classes and not others.")
    values = list(iou.values())
    return Transferability(
        dataset=snapshot.manifest.dataset,
        snapshot=snapshot.manifest.version,
        steps=steps,
        iou=iou,
        images=images,
        untested=untested,
        mean=mean(values),
        spread=stdev(values) if len(values) > 1 else 0.0,
    )


def parted(labelled: Samples, number: int) -> tuple[Samples, Samples]:
    """The samples whose masks do not show the class, and those whose masks do."""
    shows = compute().greater(compute().list_element(labelled.table["pixels"], number), 0)
    return Samples(labelled.table.filter(compute().invert(shows))), Samples(labelled.table.filter(shows))


def learned_alone(
    config: Config, method: Transfer, labelled: Samples, cache: ShardCache, steps: int, tell: Tell
) -> LabelNet:
    """A label net after `steps` steps on the samples' masks, as the first phase of the experiment takes them."""
    device = chosen_device(config.compute)
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    torch.manual_seed(config.train.seed)
    vlm = load_vlm(config.vlm, config.classes, config.train.crop)
    alone = ObjectsAlone(method.settings.label_transfer, method.settings.first_phase)
    net = LabelNet(
        vlm.student(), len(config.classes), config.classes.names.index(BACKGROUND), alone.settings.net, False
    )
    # by the names that they have in a training, parts get the learning rates that they have there
    model = nn.ModuleDict({LEARNER[:-1]: nn.ModuleDict({"labels": net})}).to(device).train()
    optimizer = build_optimizer(model, config.train)
    crops = Steps(cache, labelled, [], config.train, partner=False, tags=TagReader(config.classes))
    for step in range(steps):
        losses = take_step(alone, model, optimizer, crops[step].to(device), config.train, step)
        if (step + 1) % SAID_EVERY == 0:
            tell(f"  step {step + 1} of {steps}: loss {float(losses['total']):.3f}")
    return net.eval()


@torch.inference_mode()
def foreground_iou(net: LabelNet, samples: Sequence, number: int, cache: ShardCache, config: EvaluationConfig) -> float:
    """IoU in points of objects against background on all the samples; other classes' pixels count nowhere."""
    device = next(net.parameters()).device

    def predict(images: Tensor) -> Tensor:
        images = images.to(device)
        logits = net.objects(images).logits[:, None].float()
        wide = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([torch.zeros_like(wide), wide], dim=1)

    both = either = 0
    for row in samples:
        image, mask = read_sample(cache, row)
        assert mask is not None, row.key
        planes = as_planes(decode_image(image))
        found, truth = segment(predict, planes, 2, config).cpu().numpy() == 1, decode_mask(mask)
        counted = np.isin(truth, (net.background, number))
        both += int((found & (truth == number)).sum())
        either += int(((found | (truth == number)) & counted).sum())
    return 100 * both / max(1, either)
