"""Training on the labelled images alone: the baseline, and with all masks the upper bound."""

from typing import Literal

from pydantic import Field
from torch import nn

from semivl.config import Classes, Record
from semivl.data.stream import Batches
from semivl.methods import Guide, Losses, Method, as_float
from semivl.methods.parts.losses import cross_entropy_sums, supervised_target
from semivl.nets.decoder import DecoderShape
from semivl.nets.encoder import Trained
from semivl.nets.segmenter import Segmenter
from semivl.nets.vlm import DenseVLM


class Supervised(Method):
    """The same model as SemiVL's, learned from masks only."""

    needs = frozenset({"mask"})

    class Settings(Record):
        decoder: DecoderShape = DecoderShape()
        trains: Trained = Field("spatial", description="what of the encoder learns; spatial: attention and positions")
        text: Literal["names", "averages"] = Field("names", description="class text of the decoder; see semivl")

    def build(self, classes: Classes, vlm: DenseVLM, training: bool, guide: Guide | None = None) -> nn.Module:
        text = vlm.required_text("method supervised")
        return Segmenter(vlm, getattr(text, self.settings.text), self.settings.decoder, self.settings.trains)

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        assert isinstance(model, Segmenter) and batches.labelled is not None
        cells = model.cells(model.features(as_float(batches.labelled.images)))
        [loss] = cross_entropy_sums(cells, [supervised_target(batches.labelled.masks)])
        return {"total": loss, "supervised": loss}

    def describe(self) -> dict[str, str]:
        return {"supervised": "1 x cross-entropy of labelled pixels"}


METHOD = Supervised
