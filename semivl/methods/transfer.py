"""Transfer (L-Net, P-Net): a class without masks is learned from tags (Xiao et al., AAAI 2018; spec transfer.md).

Some classes have masks (strong), others are only named by tags (weak). In the first phase a label net learns from
the masks where there is an object of any class, and from all tags where each class seems to be. In the second phase it
is fixed. It labels the tagged photos, crop by crop, and the model learns from masks and from these labels; a
discriminator may judge whether its masks look drawn. docs/transfer.md says what is the paper's, and what is not.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import IGNORE, Classes, Record
from semivl.data import ranks
from semivl.data.stream import Batches, Labelled, Pools, Unlabelled
from semivl.data.tags import BACKGROUND, THERE, UNKNOWN
from semivl.errors import ConfigError
from semivl.methods import LEARNER, Guide, Losses, Method, as_float
from semivl.methods.parts import adversary
from semivl.methods.parts.adversary import AdversarySettings, Opinions, Side
from semivl.methods.parts.guidance import GuidanceSettings, guidance
from semivl.methods.parts.label_transfer import (
    LabelTransferSettings,
    labelled_by,
    learned_from,
    mask_size,
    note_drawn,
    without_doubtful,
)
from semivl.methods.parts.losses import cross_entropy_sums, supervised_target
from semivl.methods.parts.student import train_for_outputs
from semivl.methods.parts.tag_losses import pooled_logits, tag_loss
from semivl.methods.parts.weak_classes import told, transferable
from semivl.methods.unimatch import UniMatchModel
from semivl.nets.decoder import DecoderShape
from semivl.nets.discriminator import LEAST, Discriminator
from semivl.nets.encoder import Trained
from semivl.nets.label_net import LabelNet
from semivl.nets.segmenter import Segmenter
from semivl.nets.vlm import DenseVLM


class SelfTraining(Record):
    """The model's own labels in place of the label net's, where the discriminator takes them for drawn."""

    start: float = Field(1.0, ge=0, le=1, description="share of the second phase before it begins; 1: never")
    threshold: float = Field(0.2, ge=0, le=1, description="the discriminator's probability above which it begins")


class Transfer(Method):
    """Masks for some classes, tags for the others."""

    passes = (2, 2)
    needs = frozenset({"mask", "tags"})

    class Settings(Record):
        network: Literal["language", "deeplab"] = Field(
            "language", description="the model: the language-guided decoder, or a DeepLabV3+ head on any encoder"
        )
        decoder: DecoderShape = Field(DecoderShape(), description="of network language")
        text: Literal["names", "averages"] = Field("names", description="class text of the decoder; see semivl")
        trains: Trained = Field("spatial", description="what of the model's encoder learns")
        first_phase: float = Field(0.4, gt=0, lt=1, description="share of the steps that the label net learns for")
        label_transfer: LabelTransferSettings = LabelTransferSettings()  # pyright: ignore[reportCallIssue]
        weak_weight: float = Field(1.0, ge=0, description="of the cross-entropy with labels made from tags")
        tag_weight: float = Field(0.1, ge=0, description="of the tags against the model's pooled logits")
        adversary: AdversarySettings = AdversarySettings()  # pyright: ignore[reportCallIssue]
        self_training: SelfTraining = SelfTraining()  # pyright: ignore[reportCallIssue]

    def __init__(self, settings: Settings) -> None:
        """Raises: ConfigError CONF061, self-training without a discriminator."""
        self.settings = settings
        self.takes_guide = settings.label_transfer.activation.source == "guide"
        self.restarts = (settings.first_phase,)
        if settings.self_training.start < 1 and not settings.adversary.used:
            what = "method transfer: self_training needs the discriminator, and adversary.strong and .weak are 0."
            raise ConfigError("CONF061", what, "Set adversary.weak, or self_training.start to 1.")

    def build(self, classes: Classes, vlm: DenseVLM, training: bool, guide: Guide | None = None) -> nn.Module:
        """The model; for training with `learner.labels`, `learner.discriminator` and the guide as `teacher`.

        Raises:
            ConfigError: CONF060 no class is the background, CONF018 the network or the guide needs text, CONF063 the
                training crop is too small for the discriminator.
        """
        s = self.settings
        if BACKGROUND not in classes.names:
            what = f"method transfer tells objects from the class {BACKGROUND}, and the class map has none"
            raise ConfigError("CONF060", f"{what}.", "Add it, or use another method.")
        model = self._network(classes, vlm)
        if not training:
            return model
        how = s.label_transfer
        classifies, background = how.activation.source == "classifier", classes.names.index(BACKGROUND)
        labels = LabelNet(vlm.student(), len(classes), background, how.net, classifies)
        parts: dict[str, nn.Module] = {"labels": labels}
        if s.adversary.used:
            _require_judgeable(vlm.side, s.adversary)
            parts["discriminator"] = Discriminator(adversary.channels(s.adversary.sees, len(classes)))
        model.add_module(LEARNER[:-1], nn.ModuleDict(parts))
        if guide and self.takes_guide:
            wanted = GuidanceSettings(scale=how.activation.scale, text=how.activation.text)  # pyright: ignore
            model.add_module("teacher", guidance(guide, wanted))
        return model

    def _network(self, classes: Classes, vlm: DenseVLM) -> Segmenter | UniMatchModel:
        s = self.settings
        if s.network == "language":
            text = getattr(vlm.required_text("network language of method transfer"), s.text)
            return Segmenter(vlm, text, s.decoder, s.trains)
        model = UniMatchModel(vlm, len(classes), clip=False)
        train_for_outputs(model.encoder, s.trains)
        return model

    def survey(self, pools: Pools, classes: Classes) -> list[str]:
        """Which classes have masks and which have tags alone, with counts; raises what `transferable` does."""
        return told(transferable(pools.labelled.table, pools.unlabelled.table, classes))

    def describe(self) -> dict[str, str]:
        s, how = self.settings, self.settings.label_transfer
        first, second = f"first {100 * s.first_phase:g} % of the steps", "then"
        found = {"objects": f"{first}: cross-entropy + {how.dice} x Dice of object against background, all masks"}
        if how.activation.source == "classifier":
            found["classifier"] = f"{first}: cross-entropy of the tags, and of the classes that masks show"
        found |= {
            "supervised": f"{second}: 1 x cross-entropy of labelled pixels",
            "weak": f"{second}: {s.weak_weight} x cross-entropy with labels of tagged photos, by {how.labels.source}",
            "tags": f"{second}: {s.tag_weight} x cross-entropy of the tags",
        }
        if s.adversary.used:
            a = s.adversary
            found["adversary"] = f"{second}: {a.strong} x (photos with masks) + {a.weak} x (with tags) pass for real"
        return found

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        labelled, unlabelled = batches.labelled, batches.unlabelled
        assert labelled is not None and unlabelled is not None
        share = self.settings.first_phase
        if progress < share:
            net, how = _label_net(model), self.settings.label_transfer
            return learned_from(net, labelled, unlabelled, how, progress >= share * how.warm_up)
        return self._second_phase(model, labelled, unlabelled, (progress - share) / (1 - share))

    def _second_phase(self, model: nn.Module, labelled: Labelled, unlabelled: Unlabelled, progress: float) -> Losses:
        """The model's losses; the label net is only asked. `progress` goes from 0 to 1 in this phase."""
        assert isinstance(model, Segmenter | UniMatchModel) and unlabelled.tags is not None
        s, net = self.settings, _label_net(model)
        strong, weak = as_float(labelled.images), as_float(unlabelled.images)
        masks = self._masks(net, labelled)
        made = labelled_by(net, model._modules.get("teacher"), unlabelled, s.label_transfer)
        cells = model.cells(model.features(torch.cat([strong, weak])))  # pyright: ignore[reportArgumentType]
        of_strong, of_weak = cells.split([len(strong), len(weak)])

        opinions, labels = None, made.labels
        if s.adversary.used and progress >= s.adversary.start:
            sides = (Side(strong, _probability(of_strong, strong), masks != IGNORE),
                     Side(weak, _probability(of_weak, weak), ~unlabelled.ignored))  # fmt: skip
            judge = _discriminator(model)
            opinions = adversary.opinions(judge, *sides, masks, net.background, s.adversary)
            if progress >= s.self_training.start:
                labels = self._believed(judge, sides[1], labels, unlabelled, net.background)
        [supervised] = cross_entropy_sums(of_strong, [supervised_target(masks)])
        [tagged] = cross_entropy_sums(of_weak, [supervised_target(labels)])
        # a tag of the photo does not tell of a crop that its class is not likely in
        seen = unlabelled.tags.masked_fill((unlabelled.tags == THERE) & ~made.activation.present, UNKNOWN)
        tags = tag_loss(pooled_logits(of_weak), seen, net.background)
        total = supervised + s.weak_weight * tagged + s.tag_weight * tags
        known = ~unlabelled.ignored
        count = ranks.counted(known.sum())
        found = {
            "supervised": supervised,
            "weak": tagged,
            "tags": tags,
            "weak_share": ((labels != IGNORE) & known).sum() / count,
            "weak_objects": ((labels != IGNORE) & (labels != net.background)).sum() / count,
        }
        return found | self._with(opinions, total)

    def _masks(self, net: LabelNet, labelled: Labelled) -> Tensor:
        """The masks less doubtful background, where a tag names a class that no mask has shown yet."""
        note_drawn(net, labelled.masks)
        if labelled.tags is None or not ranks.anyone(bool(((labelled.tags == THERE) & ~net.drawn).any())):
            return labelled.masks
        with torch.no_grad():
            objects = net.objects(as_float(labelled.images))
        foreground = objects.probability(mask_size(labelled.masks))
        return without_doubtful(net, labelled, foreground, self.settings.label_transfer)

    def _with(self, opinions: Opinions | None, total: Tensor) -> Losses:
        """`total` with what the discriminator has to say, and that by itself."""
        if opinions is None:
            return {"total": total}
        a = self.settings.adversary
        passes = a.strong * opinions.strong + a.weak * opinions.weak
        return {"total": total + passes + opinions.discriminator, "adversary": passes} | {
            "discriminator": opinions.discriminator
        }

    @torch.no_grad()
    def _believed(
        self, judge: Discriminator, weak: Side, labels: Tensor, unlabelled: Unlabelled, background: int
    ) -> Tensor:
        """The labels, and the model's own where the discriminator takes them for drawn and a tag allows them."""
        assert unlabelled.tags is not None
        a = self.settings.adversary
        trust = judge(adversary.seen(a.sees, weak.images, weak.probability, background)).sigmoid()
        own = weak.probability.argmax(1)
        allowed = (unlabelled.tags == THERE).gather(1, own.flatten(1)).view_as(own)
        taken = (trust > self.settings.self_training.threshold) & allowed & weak.counted
        return torch.where(taken, own, labels)


def _require_judgeable(side: int | None, settings: AdversarySettings) -> None:
    if side is not None and side < LEAST:
        asked = f"adversary.strong {settings.strong:g} and .weak {settings.weak:g}"
        what = f"method transfer: train.crop is {side}, and the discriminator ({asked}) needs {LEAST} pixels or more."
        remedy = f"Set train.crop to {LEAST} or more, or adversary.strong and .weak to 0."
        raise ConfigError("CONF063", what, remedy)


def _label_net(model: nn.Module) -> LabelNet:
    found = model.get_submodule(f"{LEARNER}labels")
    assert isinstance(found, LabelNet)
    return found


def _discriminator(model: nn.Module) -> Discriminator:
    found = model.get_submodule(f"{LEARNER}discriminator")
    assert isinstance(found, Discriminator)
    return found


def _probability(cells: Tensor, images: Tensor) -> Tensor:
    """(B, N, H, W) of logits in cells, at the images' size."""
    return F.interpolate(cells.float(), size=images.shape[-2:], mode="bilinear", align_corners=False).softmax(1)


METHOD = Transfer
