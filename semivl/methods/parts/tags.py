"""Tags as a bound on what may be believed of an image (spec transfer.md, 6): the cheapest gain for who has tags."""

from torch import Tensor

from semivl.config import IGNORE
from semivl.data.tags import ABSENT

RULED_OUT = -1e4
"""logit of a class that is not there; finite, since interpolation multiplies by 0"""


def ruled_out(logits: Tensor, tags: Tensor | None) -> Tensor:
    """(B, N, h, w) logits in which no class can win that complete tags exclude.

    Args:
        tags: (B, N) int8 as semivl.data.tags has them; None where nothing is known.
    """
    return logits if tags is None else logits.masked_fill((tags == ABSENT)[:, :, None, None], RULED_OUT)


def nothing_left(tags: Tensor | None, ignored: Tensor) -> Tensor:
    """(B, H, W) bool: what is `ignored`, and all of the images whose complete tags exclude every class.

    Such tags are of none of the classes, in a class map without background: whichever class wins says nothing.
    """
    return ignored if tags is None else ignored | (tags == ABSENT).all(1)[:, None, None]


def allowed_labels(labels: Tensor, tags: Tensor | None) -> Tensor:
    """(B, H, W) int64 labels, 255 where complete tags exclude what they say."""
    if tags is None:
        return labels
    absent = (tags == ABSENT).gather(1, labels.flatten(1).clamp(max=tags.shape[1] - 1)).view_as(labels)
    return labels.masked_fill(absent & (labels != IGNORE), IGNORE)
