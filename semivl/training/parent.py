"""A training that starts from a finished model of its own kind in place of the pretrained encoder."""

from pathlib import Path

from torch import nn

from semivl.config import Config
from semivl.errors import TrainingError
from semivl.methods import inference_state, start_from
from semivl.nets.encoder import Architecture
from semivl.training.bundle import WEIGHTS, Card, read_card, split_weights


def load_parent(folder: Path, config: Config, model: nn.Module, encoder: Architecture) -> None:
    """Puts the weights of the bundle in `folder` into the model that is about to be trained.

    Raises:
        TrainingError: TRAIN004 the folder holds no model, TRAIN010 it is of another method, class map, encoder or size.
    """
    card, (weights, _) = read_card(folder), split_weights(folder / WEIGHTS)
    others = _differences(card, config, encoder)
    wanted = {name: tensor.shape for name, tensor in inference_state(model).items()}
    if not others and wanted != {name: tensor.shape for name, tensor in weights.items()}:
        others = [f"settings of method {config.method.name} that give its weights other names or shapes"]
    if others:
        version = config.train.parent.version if config.train.parent else folder
        raise TrainingError(
            "TRAIN010",
            f"version {version} of {config.registered_model} cannot be the start of {config.name}: "
            f"it has {'; '.join(others)}.",
            "Set retrain.start to fresh, or train from a version of the same method, classes, encoder and crop.",
        )
    start_from(model, weights)


def _differences(card: Card, config: Config, encoder: Architecture) -> list[str]:
    """In words, what the parent has and the experiment has not."""
    found = []
    if card.method.name != config.method.name:
        found.append(f"method {card.method.name}, not {config.method.name}")
    if card.classes.names != config.classes.names:
        found.append(f"the classes {', '.join(card.classes.names)}")
    has, wants = card.encoder.model_dump(), encoder.model_dump()
    unlike = [f"{name} {value}, not {wants[name]}" for name, value in has.items() if value != wants[name]]
    return found + ([f"another encoder ({', '.join(unlike)})"] if unlike else [])
