"""The images that are scored: which they are, what stands for them, and how they are read ahead of the prediction."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch

from semivl.config import EvaluationConfig
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image, decode_mask
from semivl.data.sample import Row, Split
from semivl.data.snapshot import Snapshot
from semivl.errors import RegistryError
from semivl.evaluation.window import photos_at_once, segment

if TYPE_CHECKING:
    from semivl.training.bundle import Predictor

AHEAD = 2
"""groups of photos that wait, decoded, for the one that is predicted"""
Pair = tuple[np.ndarray, np.ndarray]
"""photo (H, W, 3) and mask (H, W), both uint8"""


class Sized(Protocol):
    """What says how large a photo is before it is read."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


T = TypeVar("T", bound=Sized)


def evaluation_rows(snapshot: Snapshot, split: Split) -> list[Row]:
    """The samples of the split that have a mask, by key.

    Raises:
        RegistryError: REG003 there is none.
    """
    rows = sorted((r for r in snapshot.rows(split=split) if r.mask_offset is not None), key=lambda r: r.key)
    if not rows:
        raise RegistryError(
            "REG003",
            f"snapshot {snapshot.manifest.version} of {snapshot.manifest.dataset} has no mask in {split}.",
            "Name images with masks in data.evaluation_list, then ingest.",
        )
    return rows


def split_digest(snapshot: Snapshot, split: Split = "val") -> str:
    """Sixteen hex digits that stand for the evaluated samples, their masks and the class map."""
    lines = [f"{r.sha256} {r.mask_sha256}" for r in evaluation_rows(snapshot, split)]
    return hashlib.sha256("\n".join([*snapshot.manifest.classes.names, *lines]).encode()).hexdigest()[:16]


def times_counted(rows: Sequence[Row], multiple: int) -> Counter[str]:
    """How often each sample counts in the whole: once, and the first by name again until the number divides."""
    whole = -(-len(rows) // multiple) * multiple
    by_name = sorted(rows, key=lambda row: row.source)
    return Counter(row.key for row in islice(cycle(by_name), whole))


def groups(rows: Sequence[T], config: EvaluationConfig) -> list[list[T]]:
    """The rows in groups of photos of one size that are predicted together."""
    by_size: dict[tuple[int, int], list[T]] = {}
    for row in rows:
        by_size.setdefault((row.height, row.width), []).append(row)
    found = []
    for size, alike in by_size.items():
        count = photos_at_once(size, config)
        found += [alike[first : first + count] for first in range(0, len(alike), count)]
    return found


def read_pair(cache: ShardCache, row: Row) -> Pair:
    """The sample's photo (H, W, 3) and mask (H, W), both uint8."""
    image, mask = read_sample(cache, row)
    assert mask is not None, row.key
    return decode_image(image), decode_mask(mask)


def read_ahead(chosen: Sequence[list[T]], read: Callable[[T], Pair]) -> Iterator[tuple[list[T], list[Pair]]]:
    """Each group with its photos and masks, read and decoded while the groups before it are predicted.

    One thread reads: a cache's open shards are not for several, and decoding a photo takes a small part of the time
    that predicting it does.
    """
    waiting: deque[tuple[list[T], Future[list[Pair]]]] = deque()
    with ThreadPoolExecutor(1, "read") as pool:
        try:
            for group in chosen:
                waiting.append((group, pool.submit(lambda rows: list(map(read, rows)), group)))
                if len(waiting) > AHEAD:
                    rows, pairs = waiting.popleft()
                    yield rows, pairs.result()
            while waiting:
                rows, pairs = waiting.popleft()
                yield rows, pairs.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # nobody wants the rest after a fault


def as_images(photos: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """(B, 3, H, W) float in [0, 1] of (H, W, 3) uint8 photos of one size; bytes travel to the device, not floats."""
    stacked = torch.from_numpy(np.stack(photos)).to(device)
    return stacked.permute(0, 3, 1, 2).to(torch.float32).contiguous() / 255


def predicted_mask(predictor: "Predictor", photo: np.ndarray) -> np.ndarray:
    """(H, W) uint8 class ids of an (H, W, 3) uint8 photo."""
    with torch.inference_mode():
        [image] = as_images([photo], predictor.device)
        mask = segment(predictor.logits, image, len(predictor.classes), predictor.evaluation)
    return mask.cpu().numpy()
