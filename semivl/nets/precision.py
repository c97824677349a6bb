"""What is computed in float32 where the networks around it run in bfloat16."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """The function without autocast, its tensors of floating point as float32. Tensors are to be positional."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(arg.device.type for arg in args if isinstance(arg, Tensor))
        wide = (arg.float() if isinstance(arg, Tensor) and arg.is_floating_point() else arg for arg in args)
        with torch.autocast(device, enabled=False):
            return function(*wide, **kwargs)  # pyright: ignore[reportCallIssue]

    return called
