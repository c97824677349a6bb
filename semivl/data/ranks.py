"""The ranks of a training: processes that each learn from a part of every batch and together are as one.

Alone, without a process group, every function here gives back what one process has. With several, each rank holds an
equal part of the batch, in the ranks' order, and a loss is made such that the *mean over the ranks* is the loss of the
whole batch, which is what DistributedDataParallel makes of the gradients:

- what is divided by a number of pixels is divided by `counted` of it;
- what is drawn at random is drawn for the images of all ranks, from one seed, and `part` of it is taken;
- what looks at other images of the batch, as the reversed partners of CutMix do, asks for them with `reversed_whole`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which one this process is."""
    return dist.get_rank() if world() > 1 else 0


def part(count: int) -> slice:
    """Of what was drawn for all images of the batch, that of this rank's `count` images."""
    return slice(rank() * count, (rank() + 1) * count)


def counted(count: Tensor) -> Tensor:
    """What a sum over this rank's pixels is divided by: the number of those that count on all ranks, at least 1, shared
    out equally."""
    if world() == 1:
        return count.clamp(min=1)
    return _summed(count).clamp(min=1) / world()


def mean(values: Tensor) -> Tensor:
    """The mean over the ranks; no gradient passes."""
    return values if world() == 1 else _summed(values) / world()


def anyone(said: bool) -> bool:
    """Whether any rank says so; they wait for each other."""
    return said if world() == 1 else bool(_summed(torch.tensor(int(said))))


def of_first(number: int) -> int:
    """The number that rank 0 has; they wait for each other."""
    if world() == 1:
        return number
    held = torch.tensor(number)
    dist.broadcast(held, 0)
    return int(held)


def reversed_whole(images: Tensor) -> Tensor:
    """This rank's part of the whole batch, the last image first; no gradient passes."""
    if world() == 1:
        return images.flip(0)
    plain = images.to(torch.uint8) if images.dtype == torch.bool else images.detach()
    parts = [torch.empty_like(plain) for _ in range(world())]
    dist.all_gather(parts, plain.contiguous())
    return parts[world() - 1 - rank()].flip(0).to(images.dtype)


def _summed(values: Tensor) -> Tensor:
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


@contextmanager
def first_alone() -> Iterator[None]:
    """Rank 0 goes through the block first, then all others do: they find what it left on the disk."""
    if rank() > 0:
        of_first(0)
    yield
    if rank() == 0:
        of_first(0)
