"""The README's picture: scenes, their truth, and what the baseline and SemiVL make of them.

python -m benchmarks.picture docs/images/demo.png      # after `python -m benchmarks demo`, whose models it uses
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from semivl.config import load
from semivl.data.cache import ShardCache
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.evaluation.overlay import palette
from semivl.evaluation.scores import evaluation_rows, predicted_mask, read_pair
from semivl.settings import home
from semivl.training.bundle import load_bundle, train_key
from semivl.training.observe import Unobserved
from semivl.training.trainer import train

EXPERIMENTS = {"demo-supervised": "supervised", "demo": "SemiVL"}
COLUMNS, SIDE, GAP, HEAD = 8, 128, 4, 92


def main(path: Path) -> None:
    store, configs = open_store(), [load(name) for name in EXPERIMENTS]
    snapshot = read(store, configs[0].data.dataset)
    cache = ShardCache(store, snapshot.manifest.dataset, home() / "cache" / "shards")
    folders = [home() / "bench" / train_key(c, snapshot.manifest.version) for c in configs]
    bundles = [train(c, snapshot, store, f, Unobserved()) for c, f in zip(configs, folders, strict=True)]
    predictors = [load_bundle(bundle) for bundle in bundles]
    colours = palette(len(configs[0].classes))
    names = ["image", "truth", *EXPERIMENTS.values()]
    size = (HEAD + COLUMNS * (SIDE + GAP), len(names) * (SIDE + GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        draw.text((4, row * (SIDE + GAP) + SIDE // 2 - 8), name, fill="black", font_size=15)
    for column, sample in enumerate(evaluation_rows(snapshot, "val")[:COLUMNS]):
        photo, truth = read_pair(cache, sample)
        masks = [truth, *(predicted_mask(p, photo) for p in predictors)]
        coloured = [np.where((m == 255)[..., None], 255, colours[np.minimum(m, len(colours) - 1)]) for m in masks]
        for row, pixels in enumerate([photo, *coloured]):
            place = (HEAD + column * (SIDE + GAP), row * (SIDE + GAP))
            sheet.paste(Image.fromarray(pixels.astype(np.uint8)), place)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
