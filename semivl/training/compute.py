"""Where a training runs: its device, what makes the model quicker there, and what to do when memory runs out."""

import torch
from torch import nn

from semivl.config import ComputeConfig, Config
from semivl.errors import TrainingError
from semivl.nets.decoder import Spatial, Up, decode_in_chunks
from semivl.nets.encoder import Block


def chosen_device(config: ComputeConfig) -> torch.device:
    """The device that `compute.device` means here; where several processes share a machine, each has a GPU of its own.

    Raises:
        TrainingError: TRAIN005, cuda was asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("TRAIN005", "compute.device is cuda, but torch sees no GPU.", "Use auto or cpu.")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def apply_compute(model: nn.Module, config: ComputeConfig) -> None:
    """Sets what makes the model quicker or smaller without changing what it computes."""
    decode_in_chunks(model, config.class_chunk)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    for module in model.modules():
        if config.compile and isinstance(module, Block | Up | Spatial):
            module.compile(dynamic=False)


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not have the memory it asked for, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def memory_advice(config: Config) -> str:
    """What to set so that a training step needs less memory, what changes nothing else first."""
    chunk, t = config.compute.class_chunk, config.train
    same, other = [], []
    if config.method.name in ("semivl", "supervised") and (chunk is None or chunk > 1):
        same.append(f"compute.class_chunk={max(1, (chunk or len(config.classes)) // 2)}")
    if config.compute.precision == "fp32":
        other.append("compute.precision=bf16")
    if t.batch > 1:
        other.append(f"train.batch={t.batch // 2} with twice the train.steps")
    if t.crop >= 64:
        other.append(f"train.crop={t.crop * 3 // 4 // 16 * 16}")
    goes_on = [f"Set {', '.join(same)} and run again: it goes on from the kept steps."] if same else []
    anew = [f"Or start another training with {', or '.join(other)}."] if other else []
    return " ".join([*goes_on, *anew, "`semivl show` says what each is expected to need."])
