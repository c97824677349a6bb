"""Photos with their masks, one after the other, for what looks at labelled images without a trained model."""

from collections.abc import Iterator

import numpy as np

from semivl.config import Config
from semivl.data.cache import ShardCache, read_sample
from semivl.data.checks import Files, Limits, Quarantined, examine
from semivl.data.decode import decode_image, decode_mask
from semivl.data.layouts import list_sources
from semivl.data.snapshot import read
from semivl.data.source_files import open_source, read_files
from semivl.data.store import open_store
from semivl.errors import DataError
from semivl.evaluation.language import Pair
from semivl.evaluation.scores import evaluation_rows, read_pair
from semivl.settings import home


def snapshot_pairs(config: Config) -> Iterator[Pair]:
    """The evaluation images of the dataset's current snapshot.

    Raises:
        DataError: DATA201 there is no snapshot yet.
        RegistryError: REG003 it has no evaluation image with a mask.
    """
    store = open_store()
    cache = ShardCache(store, config.data.dataset, home() / "cache" / "shards")
    for row in evaluation_rows(read(store, config.data.dataset), "val"):
        yield read_pair(cache, row)


def unlabelled_photos(config: Config) -> Iterator[tuple[str, np.ndarray]]:
    """Key and photo, (H, W, 3) uint8, of every unlabelled training image of the dataset's current snapshot.

    Raises:
        DataError: DATA201 there is no snapshot yet.
    """
    store = open_store()
    cache = ShardCache(store, config.data.dataset, home() / "cache" / "shards")
    for row in read(store, config.data.dataset).rows(split="train"):
        if row.supervision != "mask":
            yield row.key, decode_image(read_sample(cache, row)[0])


def source_pairs(config: Config) -> Iterator[Pair]:
    """The evaluation images of the source folder itself, before any ingest and without a service.

    Raises:
        DataError: the source cannot be used; a file of it that an ingest would leave out, with that check's code.
    """
    files, limits = open_source(config.data), Limits.of(config.data)
    for source in list_sources(config.data, files):
        if source.split != "val" or not source.masked:
            continue
        read = read_files(files, source, config.classes, limits)
        found = examine(source, read, config.classes, limits) if isinstance(read, Files) else read
        if isinstance(found, Quarantined):
            raise DataError(
                found.code, f"{found.source}: {found.reason}.", "Mend the file, or ingest and measure that."
            )
        assert found.files.mask is not None
        yield decode_image(found.files.image), decode_mask(found.files.mask)
