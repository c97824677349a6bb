"""The ranks of a training: processes that each learn from a part of every batch and together are as one.

Alone, without a process group, every function here gives back what one process has. With several, each rank holds an
equal part of the batch, in the ranks' order, and a loss is made such that the *mean over the ranks* is the loss of the
whole batch, which is what DistributedDataParallel makes of the gradients:

- what is divided by a number of pixels is divided by `counted` of it, and a plain mean is `mean_of_all`;
- what is no mean, as Dice or a contrast, every rank computes alike from what all have: `summed`, `gathered`;
- what is drawn at random is drawn for the images of all ranks, from one seed, and `part` of it is taken;
- what looks at other images of the batch, as the reversed partners of CutMix do, asks for them with `reversed_whole`.

Ranks wait for each other in most of these functions, and in the gradients of `summed` and `gathered`, so all ranks have
to come by them, whatever their images show.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

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


def chunk(count: int) -> slice:
    """This rank's part of `count` things that all ranks know of and need: about as many as each other's, or none."""
    return slice(count * rank() // world(), count * (rank() + 1) // world())


def counted(count: Tensor, least: float = 1) -> Tensor:
    """What a sum over this rank's pixels is divided by: the number or weight of those that count on all ranks, at least
    `least`, shared out equally."""
    if world() == 1:
        return count.clamp(min=least)
    return _summed(count).clamp(min=least) / world()


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of the values of all ranks, which may have unequally many or none: this rank's share in it."""
    if world() == 1:
        return values.mean()
    return values.sum() / counted(torch.tensor(values.numel()))


def mean(values: Tensor) -> Tensor:
    """The mean over the ranks; no gradient passes."""
    return values if world() == 1 else _summed(values) / world()


def anyone(said: bool) -> bool:
    """Whether any rank says so; they wait for each other."""
    return said if world() == 1 else bool(either(torch.tensor(said)))


def either(said: Tensor) -> Tensor:
    """Where any rank says so, of bools of one shape."""
    return said if world() == 1 else _summed(said.int()) > 0


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


def summed(values: Tensor) -> Tensor:
    """The sum over the ranks, of values of one shape; gradients go to all ranks."""
    return gathered(values[None]).sum(0)


def gathered(rows: Tensor) -> Tensor:
    """(M, ...) the rows of all ranks, which may have unequally many or none; gradients go to those that hold them."""
    if world() == 1:
        return rows
    told = [torch.zeros(2, dtype=torch.int64) for _ in range(world())]
    dist.all_gather(told, torch.tensor([len(rows), rows.requires_grad]))
    counts, learned = zip(*(one.tolist() for one in told), strict=True)
    plain = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
    if any(learned) and not plain.requires_grad:
        # no rows have no gradient, but the others wait for this rank on the way back
        plain = plain.detach().requires_grad_()
    return _Gathered.apply(plain, counts, _way_back(dist.group.WORLD)).to(rows.dtype)  # pyright: ignore


class _Gathered(torch.autograd.Function):
    """Rows of unequally many, filled up for the way. Back comes what all ranks together want of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...], way_back: dist.ProcessGroup) -> Tensor:
        before = sum(counts[: rank()])
        ctx.own, ctx.way_back = slice(before, before + len(rows)), way_back
        filled = rows.new_zeros(max(counts), *rows.shape[1:])
        filled[: len(rows)] = rows
        parts = [torch.empty_like(filled) for _ in counts]
        dist.all_gather(parts, filled)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _summed(gradients[0].contiguous(), ctx.way_back)[ctx.own], None, None


@cache
def _way_back(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """A group of the same ranks, for gradients: DistributedDataParallel sends its own meanwhile, and not on every rank
    at the same place among these."""
    return dist.new_group()  # pyright: ignore[reportReturnType]


def _summed(values: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    total = values.detach().clone()
    dist.all_reduce(total, group=group)
    return total


@contextmanager
def first_alone() -> Iterator[None]:
    """Rank 0 goes through the block first, then all others do: they find what it left on the disk."""
    if rank() > 0:
        of_first(0)
    yield
    if rank() == 0:
        of_first(0)
