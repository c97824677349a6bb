"""An exponential moving average of a model, kept inside it as the submodule `average` (UniMatch V2; spec 4.3).

It gets no gradient and no optimiser; the trainer moves it after each update. It is saved with the model and takes
its place in the finished one.
"""

import copy

import torch
from torch import nn

NAME = "average"
DECAY = 0.996


def add_average(model: nn.Module) -> None:
    """Puts a frozen copy of the model into it."""
    model.add_module(NAME, copy.deepcopy(model).requires_grad_(False))


def decay(step: int) -> float:
    """The share of the average that stays after `step`, counted from 0: 0, 1/2, 2/3, ... up to 0.996."""
    return min(1 - 1 / (step + 1), DECAY)


@torch.no_grad()
def update(model: nn.Module, step: int) -> None:
    """Moves the average, parameters and buffers, towards the model after the update of `step`.

    Step 0 copies. Counters, as BatchNorm's number of batches, are copied always: an average of them means nothing.
    """
    kept = decay(step)
    average = model.get_submodule(NAME)
    student = dict(model.state_dict(keep_vars=True))
    for name, tensor in average.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.lerp_(student[name], 1 - kept)
        else:
            tensor.copy_(student[name])
