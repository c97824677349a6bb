"""What one photo costs: milliseconds and memory, measured on the device that predicts, one photo at a time."""

import contextlib
import resource
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from semivl.config import Record
from semivl.evaluation.split import predicted_mask

if TYPE_CHECKING:
    from semivl.training.bundle import Predictor

RUNS = 3


class Latency(Record):
    """Of one photo of that size, from its pixels to its mask."""

    width: int
    height: int
    ms: float
    """median of RUNS runs after one that does not count"""
    peak_memory_mib: float
    """at the most during these runs: of the GPU where one predicts, else all that the process has resident"""


def latencies(predictor: "Predictor", sizes: Iterable[tuple[int, int]]) -> tuple[Latency, ...]:
    """What a photo of noise costs at each size (width, height)."""
    found = []
    for width, height in sizes:
        photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        predicted_mask(predictor, photo)
        forget_peak(predictor.device)
        seconds = [_timed(predictor, photo) for _ in range(RUNS)]
        peak = peak_memory_mib(predictor.device)
        found.append(Latency(width=width, height=height, ms=1000 * statistics.median(seconds), peak_memory_mib=peak))
    return tuple(found)


def _timed(predictor: "Predictor", photo: np.ndarray) -> float:
    begun = time.perf_counter()
    predicted_mask(predictor, photo)  # the mask lies in the host's memory, so that a GPU has finished
    return time.perf_counter() - begun


def forget_peak(device: torch.device) -> None:
    """Lets `peak_memory_mib` count from now on; for a process only Linux can, elsewhere it counts from its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib(device: torch.device) -> float:
    """The most memory since `forget_peak`: allocated on the GPU where one predicts, else resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
