"""The bound of groups: the mIoU that nobody can pass who gives each group one label (SCG, spec scg.md 2.1).

It tells grouping from naming: where it is low, the borders are wrong, and no better text helps.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from semivl.config import IGNORE, Classes, Record
from semivl.errors import RegistryError
from semivl.evaluation.counting import by_name, confusion, iou_points, mean
from semivl.evaluation.language import Pair
from semivl.methods import as_planes

Group = Callable[[Tensor], Tensor]
"""images (B, 3, H, W) in [0, 1] to groups (B, H, W) int64"""


class GroupScores(Record):
    """What groups of photos with masks allow. IoU in points, over the classes that the masks hold."""

    images: int
    groups: float
    """of a photo, in the mean"""
    bound: float
    """mIoU where each group has the label of most of its labelled pixels"""
    iou: dict[str, float | None]
    """None for a class that no mask holds"""


@torch.inference_mode()
def measure_groups(group: Group, classes: Classes, pairs: Iterable[Pair]) -> GroupScores:
    """The oracle bound of a grouping on photos with masks.

    Raises:
        RegistryError: REG003, not one labelled pixel.
    """
    table, counted = torch.zeros(len(classes), len(classes), dtype=torch.int64), []
    for photo, mask in pairs:
        image = as_planes(photo)[None]
        groups, truth = group(image)[0].cpu(), torch.from_numpy(mask.copy()).long()
        table += confusion(truth, majority(groups, truth, len(classes)), len(classes))
        counted.append(len(groups.unique()))
    if not table.sum():
        raise RegistryError("REG003", "there is no labelled pixel to measure on.", "Name images with masks.")
    present = table.sum(1).numpy() > 0
    points = np.where(present, iou_points(table.numpy()), np.nan)
    bound = mean(points)
    assert bound is not None
    return GroupScores(
        images=len(counted), groups=float(np.mean(counted)), bound=bound, iou=by_name(classes.names, points)
    )


def majority(groups: Tensor, mask: Tensor, classes: int) -> Tensor:
    """(H, W) int64: to each pixel of groups (H, W) the class that most pixels of its group have in the mask (H, W).

    The first of equal ones; 0 for a group without a labelled pixel.
    """
    votes = torch.zeros(int(groups.max()) + 1, classes, dtype=torch.int64)
    labelled = mask != IGNORE
    votes.index_put_((groups[labelled], mask[labelled]), torch.ones((), dtype=torch.int64), accumulate=True)
    return votes.argmax(1)[groups]


def group_tables(scores: GroupScores) -> dict[str, list[dict[str, str]]]:
    """The scores as tables to print, by title."""
    whole = {
        "images": str(scores.images),
        "groups a photo": f"{scores.groups:.1f}",
        "highest mIoU that they allow": f"{scores.bound:.1f}",
    }
    iou = [{"class": n, "IoU at the most": "absent" if v is None else f"{v:.1f}"} for n, v in scores.iou.items()]
    return {"groups": [whole], "classes of groups": iou}
