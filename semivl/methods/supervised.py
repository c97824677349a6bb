"""Training on the labelled images alone: the baseline, and with all masks the upper bound."""

from torch import Tensor, nn

from semivl.config import Classes, Record
from semivl.data.stream import Batches
from semivl.methods import Losses, as_float
from semivl.methods.parts.losses import supervised_loss
from semivl.nets.decoder import DecoderShape
from semivl.nets.segmenter import Segmenter
from semivl.nets.vlm import DenseVLM


class Supervised:
    """The same model as SemiVL's, learned from masks only."""

    needs = frozenset({"mask"})

    class Settings(Record):
        decoder: DecoderShape = DecoderShape()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def build(self, classes: Classes, vlm: DenseVLM, training: bool) -> nn.Module:
        return Segmenter(vlm, self.settings.decoder)

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        loss = supervised_loss(model(as_float(batches.labelled.images)), batches.labelled.masks)
        return {"total": loss, "supervised": loss}

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        return model(images)


METHOD = Supervised
