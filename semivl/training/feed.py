"""From batches in memory to batches on the device."""

from collections.abc import Iterable, Iterator

import torch

from semivl.data.stream import Batches


def on_device(incoming: Iterable[Batches], device: torch.device) -> Iterator[Batches]:
    """The batches on the device.

    To a GPU they are copied by a stream of their own while the kernels of the step before still run: this process is
    ahead of them, since no step waits for the device. On a CPU there is nothing to copy.
    """
    if device.type != "cuda":
        for batch in incoming:
            yield batch.to(device)
        return
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for batch in incoming:
        with torch.cuda.stream(copying):
            moved = batch.to(device)
        computing.wait_stream(copying)
        moved.record_stream(computing)
        yield moved
