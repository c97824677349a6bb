"""How fast a training goes: images a second, the share of time waited for data, memory, the share of the device's peak.

Operations are counted once, by torch's counter in the first step of a process: matrix products and convolutions,
forwards and backwards, what is computed again on the way back included.
"""

import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from semivl.config import ComputeConfig
from semivl.data import ranks
from semivl.data.stream import Batches

PEAK_TFLOPS = {
    ("H200", "bf16"): 989.0, ("H100", "bf16"): 989.0, ("A100", "bf16"): 312.0, ("L40S", "bf16"): 362.0,
    ("H200", "fp32"): 67.0, ("H100", "fp32"): 67.0, ("A100", "fp32"): 19.5, ("L40S", "fp32"): 91.6,
}  # fmt: skip
"""dense, of one device, by a part of its name and `compute.precision`; NVIDIA's data sheets, SXM where there are two"""


def peak_tflops(config: ComputeConfig, device: torch.device) -> float | None:
    """What the device can do at most; None where nobody knows."""
    if config.peak_tflops or device.type != "cuda":
        return config.peak_tflops
    name = torch.cuda.get_device_name(device)
    return next((t for (part, p), t in PEAK_TFLOPS.items() if part in name and p == config.precision), None)


class Meter:
    """Counts between two readings."""

    def __init__(self, config: ComputeConfig, device: torch.device) -> None:
        self._device, self._peak = device, peak_tflops(config, device)
        self._flops: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._since, self._waited, self._steps, self._images = time.perf_counter(), 0.0, 0, 0

    def timed(self, incoming: Iterable[Batches]) -> Iterator[Batches]:
        """The same batches; how long each was waited for is counted."""
        batches = iter(incoming)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.perf_counter() - asked
            self._steps, self._images = self._steps + 1, self._images + batch.images
            yield batch

    def counted(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The step's losses; the first time its operations are counted, where there is a peak to compare with."""
        if self._peak is None or self._flops is not None:
            return step()
        with FlopCounterMode(display=False) as counter:
            losses = step()
        self._flops = counter.get_total_flops()
        return losses

    def read(self) -> dict[str, float]:
        """What was counted since the last reading; the device is to have finished its work."""
        seconds = time.perf_counter() - self._since
        values = {
            "seconds_per_step": seconds / self._steps,
            "images_per_second": self._images * ranks.world() / seconds,
            "data_wait_share": self._waited / seconds,
        }
        if self._device.type == "cuda":
            values["device_mib"] = torch.cuda.max_memory_allocated(self._device) / 2**20
            torch.cuda.reset_peak_memory_stats(self._device)
        if self._peak and self._flops:
            values["flops_utilisation"] = self._flops * self._steps / seconds / (self._peak * 1e12)
        self._begin()
        return values
