"""What a method makes of each captioned image once, kept by content beside the shards, so that it is made once."""

import logging
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image
from semivl.data.sample import Row
from semivl.methods import ImageMaps, as_planes

log = logging.getLogger(__name__)


def made_maps(maps: ImageMaps, rows: Sequence[Row], cache: ShardCache, folder: Path) -> Path:
    """The folder that holds a map KEY.png of each row's image; those that are missing are made."""
    place = folder / maps.key
    place.mkdir(parents=True, exist_ok=True)
    missing = [row for row in rows if not (place / f"{row.key}.png").is_file()]
    for done, row in enumerate(missing, 1):
        image = as_planes(decode_image(read_sample(cache, row)[0]))
        with torch.inference_mode():
            made = maps.make(image)
        body = BytesIO()
        Image.fromarray(made.to(torch.uint8).numpy()).save(body, "PNG")
        unfinished = place / f".{row.key}.{os.getpid()}"
        unfinished.write_bytes(body.getvalue())
        unfinished.replace(place / f"{row.key}.png")
        if done == len(missing) or done % max(1, len(missing) // 10) == 0:
            log.info("maps of %d of %d images made", done, len(missing))
    return place
