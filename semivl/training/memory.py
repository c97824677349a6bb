"""What memory a training step and a prediction need, found by going through them with tensors that hold nothing.

torch's fake tensors run every operation for its shapes alone, so a paper-sized model is rehearsed in seconds on any
machine. Counted are the bytes of all tensors alive at once; what a library allocates for itself is not.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from semivl.config import Config
from semivl.methods import LEARNER, TEACHER, Method
from semivl.methods.parts.losses import Target, cross_entropy_sums

MIB = 2**20


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside it and still alive, and the most there were at once."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        """`before`: the tensors that are there already, views of which do not count."""
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {t.untyped_storage()._cdata: t for t in before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, made)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            self._known.pop(key, None)
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


class Needs(NamedTuple):
    """Memory in MiB."""

    weights: float
    """parameters and buffers, the teacher's and the average's included"""
    training: float
    """the most at once in a training step: weights, gradients, AdamW's two moments, activations"""
    prediction: float
    """the most at once while windows of one evaluation batch are predicted, with the weights it takes"""


def expected(config: Config, method: Method, model: nn.Module) -> Needs:
    """What `model` needs to be trained and to predict as `config` says; its weights are not touched.

    The training step is rehearsed as one pass over all the images that its method takes gradients through, or where a
    model is not made of features and cells, as a prediction of a batch with gradients.
    """
    weights = sum(t.nbytes for t in model.state_dict().values())
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    t, e = config.train, config.evaluation
    bf16 = torch.autocast("cpu", torch.bfloat16, enabled=config.compute.precision == "bf16")
    with FakeTensorMode(), bf16:
        training = _peak(model, lambda m: _rehearse(method, m.train(), t.batch, t.crop)) if trained else 0
        with torch.no_grad():
            images = torch.empty(e.batch, 3, e.window, e.window)
            prediction = _peak(model, lambda m: method.predict(m.eval(), images))
    kept = sum(v.nbytes for k, v in model.state_dict().items() if not k.startswith((TEACHER, LEARNER, "average.")))
    return Needs(weights / MIB, (weights + 2 * trained + training) / MIB, (kept + prediction) / MIB)


class _Call(nn.Module):
    """A function of a model as a module, which is what torch can lend other weights to."""

    def __init__(self, model: nn.Module, function: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self) -> None:
        self.function(self.model)


def _peak(model: nn.Module, function: Callable[[nn.Module], Any]) -> int:
    """Bytes that the function makes at once, at the most, on the model with tensors that hold nothing."""
    named = [*model.named_parameters(), *model.named_buffers()]
    empty = {f"model.{n}": torch.empty(t.shape, dtype=t.dtype).requires_grad_(t.requires_grad) for n, t in named}
    with LiveBytes(empty.values()) as live:
        functional_call(_Call(model, function), empty, ())
    return live.peak


def _rehearse(method: Method, model: Any, batch: int, crop: int) -> None:
    if not (hasattr(model, "features") and hasattr(model, "cells")):
        method.predict(model, torch.empty(batch, 3, crop, crop)).sum().backward()
        return
    encoded, decoded = (batch * passes for passes in method.passes)
    seen = model.features(torch.empty(encoded, 3, crop, crop))
    again = torch.arange(decoded) % encoded
    cells = model.cells(_map(lambda x: x[again], seen))
    labels = torch.zeros(decoded, crop, crop, dtype=torch.long)
    cross_entropy_sums(cells, [Target(labels, torch.zeros(decoded, crop, crop))])[0].backward()


def _map(change: Any, seen: Any) -> Any:
    """Features, of whatever tuples they are made, each tensor changed."""
    if isinstance(seen, Tensor):
        return change(seen)
    parts = [_map(change, part) for part in seen]
    return type(seen)(*parts) if hasattr(seen, "_fields") else tuple(parts)
