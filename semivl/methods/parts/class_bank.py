"""What stands for the classes in a method that compares image embeddings with their text by itself."""

import torch
from torch import Tensor
from torch.nn import functional as F

from semivl.config import Classes
from semivl.language.text import classes_of_phrases, definition_prompts, name_prompts
from semivl.language.tower import TextTower
from semivl.nets.vlm import DenseVLM


def owners(classes: Classes, by: str) -> Tensor:
    """(M,) int64 the class that each row of the bank speaks for, by `names` or by `definitions`."""
    return classes_of_phrases(classes) if by == "definitions" else torch.arange(len(classes))


def prompts(classes: Classes, by: str, template: str = "{}") -> list[str]:
    """What stands for the class in each row of the bank, in that template; by itself where there is none."""
    made = definition_prompts if by == "definitions" else name_prompts
    return made(classes.model_copy(update={"prompt": template}))


def bank(classes: Classes, vlm: DenseVLM, by: str, templates: tuple[str, ...]) -> Tensor:
    """(M, D) L2-normalised embeddings of the class map's names or definitions.

    Args:
        templates: sentences with {}, over whose embeddings the mean is taken; the class map's own prompt where empty.

    Raises:
        ConfigError: CONF018, `vlm` has no text.
    """
    text = vlm.required_text("method spatial_grouping")
    own = text.phrases if by == "definitions" else text.names
    rows = len(owners(classes, by))
    if templates and vlm.language is not None:
        return ensemble(vlm.language, classes, by, templates)
    # a model before its weights are loaded has no text yet, only the width of its space
    return own.clone() if len(own) == rows else own.new_zeros(rows, own.shape[1])


@torch.no_grad()
def ensemble(tower: TextTower, classes: Classes, by: str, templates: tuple[str, ...]) -> Tensor:
    """(M, D) L2-normalised means over templates of a class map's names or definitions."""
    each = [tower.encode(prompts(classes, by, template)) for template in templates]
    return F.normalize(torch.stack(each).mean(0), dim=-1).cpu()


def class_cosines(embeddings: Tensor, rows: Tensor, owner: Tensor, classes: int) -> Tensor:
    """(..., N) cosine of embeddings (..., D) with the nearest of each class's rows (M, D)."""
    with torch.autocast(embeddings.device.type, enabled=False):
        cosines = embeddings.float() @ rows.T
    best = cosines.new_full((*cosines.shape[:-1], classes), -torch.inf)
    return best.scatter_reduce(-1, owner.expand_as(cosines), cosines, reduce="amax")
