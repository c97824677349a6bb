"""A dataset in a store, small enough for the tests of what is labelled next and of what comes back."""

from pathlib import Path

import numpy as np
from PIL import Image

from semivl.config import (
    ClassDefinition,
    Classes,
    ComputeConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    GateConfig,
    MethodConfig,
    TrainConfig,
    VlmConfig,
)
from semivl.data.ingest import ingest
from semivl.data.snapshot import Manifest
from semivl.nets.encoder import DenseEncoder
from semivl.training.bundle import save_bundle
from tests.made_shards import mask, picture
from tests.tiny import SHAPE, tiny_vlm

NAMES = ("background", "cat", "dog & co")
CLASSES = Classes(classes=tuple(ClassDefinition(name=name) for name in NAMES))  # pyright: ignore[reportCallIssue]
METHOD = MethodConfig(name="supervised", settings={"decoder": SHAPE.model_dump(mode="json")})
LABELLED, EVALUATION, UNLABELLED = 3, 2, 8
WIDTH, HEIGHT = 48, 32


def source(folder: Path) -> Path:
    """A source in the layout `folder`; u000 and u001 look the same, u002 looks like the labelled m000."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    names = [f"m{i:03}" for i in range(LABELLED)] + [f"v{i:03}" for i in range(EVALUATION)]
    for place, name in enumerate(names):
        (folder / "images" / f"{name}.jpg").write_bytes(picture(place))
        (folder / "masks" / f"{name}.png").write_bytes(mask(place))
    for place in range(UNLABELLED):
        (folder / "images" / f"u{place:03}.jpg").write_bytes(picture(500 + place))
    for name, like in (("u001", 500), ("u002", 0)):
        image = Image.open(folder / "images" / ("u000.jpg" if like else "m000.jpg"))
        pixels = np.asarray(image).copy()
        pixels[0, 0] ^= 255
        Image.fromarray(pixels).save(folder / "images" / f"{name}.jpg", quality=95)
    (folder / "val.txt").write_text("".join(f"{name}\n" for name in names[LABELLED:]))
    return folder


def world(folder: Path, name: str) -> tuple[Config, Manifest]:
    """The experiment and the first snapshot of its dataset, which lies in the store in use."""
    config = Config(
        name="tiny",
        model=name,
        data=DataConfig(dataset=name, source=source(folder / "source"), evaluation_list="val.txt"),  # pyright: ignore[reportCallIssue]
        classes=CLASSES,
        vlm=VlmConfig(model="none"),  # pyright: ignore[reportCallIssue]
        method=METHOD,
        train=TrainConfig(),  # pyright: ignore[reportCallIssue]
        evaluation=EvaluationConfig(window=32, stride=24),  # pyright: ignore[reportCallIssue]
        compute=ComputeConfig(device="cpu"),  # pyright: ignore[reportCallIssue]
        gate=GateConfig(),  # pyright: ignore[reportCallIssue]
    )
    return config, ingest(config.data, config.classes, workers=1)


def bundle(folder: Path, config: Config) -> Path:
    """A finished model with random weights."""
    from semivl.methods import create

    vlm = tiny_vlm()
    assert isinstance(vlm.encoder, DenseEncoder)
    save_bundle(folder, config, create(METHOD).build(config.classes, vlm, True), vlm.encoder.architecture)
    return folder
