"""Who guides a training that takes guidance: the student's own encoder as it was, another one, or a finished model."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from semivl.config import Classes, Config
from semivl.errors import TrainingError
from semivl.methods import Guide, create
from semivl.nets.vlm import DenseVLM, load_vlm
from semivl.training.bundle import Predictor, load_bundle
from semivl.training.compute import chosen_device


class FinishedModel(nn.Module):
    """A finished model of any method as a module: images (B, 3, H, W) in [0, 1] to logits (B, N, H, W).

    All that its prediction runs is part of it, and so follows the student to its device.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.running, self.predict = nn.ModuleList(predictor.running), predictor.scores

    def forward(self, images: Tensor) -> Tensor:
        return self.predict(images)


def chosen_guide(
    config: Config, vlm: DenseVLM, load: Callable[..., DenseVLM] = load_vlm, finished: Path | None = None
) -> Guide | None:
    """The model that guides; None where none does.

    Args:
        vlm: the student's own, as it was before the training.
        finished: bundle of the finished model that `guidance.model` names.

    Raises:
        TrainingError: TRAIN004 the bundle is none, TRAIN005 there is no such device for it, TRAIN014 its model knows
            other classes.
    """
    g = config.guidance
    if g.labels or not create(config.method).takes_guide:
        return None
    if finished:
        # where the student will be: a GPU runs the model itself, not the copy that is quicker on CPUs
        device = str(chosen_device(config.compute))
        return FinishedModel(finished_predictor(finished, g.model, config.classes, device))
    if g.vlm is None and g.table_side in (None, config.train.crop):
        return vlm
    own = config.vlm.model_copy(update={"conv_stem": False})
    return load(g.vlm or own, config.classes, g.table_side or config.train.crop)


def finished_predictor(folder: Path, address: str | None, classes: Classes, device: str = "cpu") -> Predictor:
    """The model of a bundle that is to guide.

    Raises:
        TrainingError: TRAIN004 the bundle is none, TRAIN014 its model knows other classes.
    """
    predictor = load_bundle(folder, device)
    if predictor.classes.names != classes.names:
        odd = ", ".join(sorted(set(predictor.classes.names) ^ set(classes.names))) or "their order"
        what = f"the model {address} was made for other classes: they differ in {odd}."
        raise TrainingError("TRAIN014", what, "Name a model of the experiment's classes.")
    return predictor
