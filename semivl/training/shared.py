"""A training step that several ranks take together: torch's DistributedDataParallel around a method's step."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from semivl.data import ranks
from semivl.data.stream import Batches
from semivl.methods import Losses, Method


class Step(nn.Module):
    """A method's step as a module, which is what torch can distribute."""

    def __init__(self, method: Method, model: nn.Module) -> None:
        super().__init__()
        self.method, self.model = method, model

    def forward(self, batches: Batches, progress: float) -> Losses:
        return self.method.training_step(self.model, batches, progress)


class OverRanks(Method):
    """A method whose gradients are the mean over all ranks, so that every rank's weights stay the same."""

    def __init__(self, method: Method, model: nn.Module) -> None:
        super().__init__(method.settings)
        self.restarts = method.restarts
        # a method need not use all of its model in every step; buffers follow those of rank 0
        self._step = DistributedDataParallel(Step(method, model), find_unused_parameters=True)

    def training_step(self, model: nn.Module, batches: Batches, progress: float) -> Losses:
        return self._step(batches, progress)


def over_ranks(method: Method, model: nn.Module) -> Method:
    """The method itself where there is one rank alone.

    BatchNorm: between GPUs its statistics are of all ranks' images; between CPUs, where torch has no such thing, of
    each rank's own.
    """
    return OverRanks(method, model) if ranks.world() > 1 else method


def with_shared_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, on GPUs of several ranks with BatchNorm over all of them."""
    several = ranks.world() > 1 and device.type == "cuda"
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if several else model


def mean_losses(losses: dict[str, Tensor]) -> dict[str, float]:
    """The losses of the whole batch as numbers; here alone the training waits for its device."""
    values = ranks.mean(torch.stack([value.detach().float() for value in losses.values()]))
    return dict(zip(losses, values.tolist(), strict=True))
