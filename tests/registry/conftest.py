"""A tiny finished model, its experiment and snapshot, and a registry name of its own for every test."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from semivl.config import (
    ComputeConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    GateConfig,
    MethodConfig,
    TrainConfig,
    VlmConfig,
)
from semivl.data.snapshot import Manifest
from semivl.data.store import Store
from semivl.evaluation.scores import Bin, Latency, Scores
from semivl.methods import create
from semivl.registry.decision import Decision
from semivl.registry.package import CHALLENGER
from semivl.registry.reigns import CHAMPION, champion
from semivl.registry.runs import open_run
from semivl.registry.tracking import client
from semivl.training.bundle import save_bundle
from tests.registry.cases import decision
from tests.tiny import CLASSES, SHAPE, tiny_vlm

METHOD = MethodConfig(name="supervised", settings={"decoder": SHAPE.model_dump(mode="json")})


@pytest.fixture
def config(mlflow_server: str) -> Iterator[Config]:
    name = f"tiny-{uuid.uuid4().hex[:8]}"
    yield Config(
        name="tiny",
        model=name,
        data=DataConfig(dataset=name, source=Path("photos")),
        classes=CLASSES,
        vlm=VlmConfig(model="none"),
        method=METHOD,
        train=TrainConfig(seed=int(uuid.uuid4().hex[:6], 16)),
        evaluation=EvaluationConfig(window=32, stride=24),
        compute=ComputeConfig(),
        gate=GateConfig(floor=10.0, margin=0.5),
    )


@pytest.fixture
def manifest(config: Config) -> Manifest:
    return Manifest(
        dataset=config.data.dataset,
        version="0123456789abcdef",
        parent=None,
        classes=CLASSES,
        shards=(),
        samples=13,
        counts={"train": 9, "val": 4, "train/mask": 3, "train/none": 6, "val/mask": 4},
        quarantined=0,
        created_by="0",
    )


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder; its weights are random."""
    vlm = tiny_vlm()
    model = create(METHOD).build(CLASSES, vlm, True)
    folder = tmp_path_factory.mktemp("bundle")
    any_config = Config.model_construct(
        name="tiny", method=METHOD, classes=CLASSES, evaluation=EvaluationConfig(window=32, stride=24)
    )
    save_bundle(folder, any_config, model, vlm.encoder.architecture)
    return folder


@pytest.fixture
def run_id(config: Config, manifest: Manifest) -> str:
    """A finished run without a model."""
    with open_run(config, manifest, {}) as run:
        run.metrics(1, {"train/total": 1.0})
    return run.run_id


@pytest.fixture
def scored(config: Config, manifest: Manifest) -> Callable[..., Scores]:
    """Scores of a version with that mIoU."""

    def make(version: int, miou: float, digest: str = "d1") -> Scores:
        return Scores(
            model=config.registered_model, model_version=version, dataset=manifest.dataset, snapshot=manifest.version,
            split="val", digest=digest, images=4, pixels=400, miou=miou, iou={"class 0": miou, "class 1": None},
            accuracy=50.0, class_accuracy={"class 0": 50.0, "class 1": None}, ms_per_image=3.0, peak_memory_mib=100.0,
            boundary_iou={"class 0": 20.0, "class 1": None}, boundary_miou=20.0, ece=5.0, confidence=55.0,
            reliability=(Bin(low=0.0, high=1.0, pixels=400, confidence=55.0, accuracy=50.0),), slices=(),
            latency=(Latency(width=320, height=240, ms=12.0, peak_memory_mib=80.0),), model_bytes=1000,
        )  # fmt: skip

    return make


@pytest.fixture
def versions(mlflow_server: str) -> str:
    """A model with versions 1 to 4, of which 1 is champion and 2 challenger; its name. No files are behind them."""
    name = f"tiny-{uuid.uuid4().hex[:8]}"
    client().create_registered_model(name)
    for _ in range(4):
        client().create_model_version(name, "s3://nowhere/model")
    client().set_registered_model_alias(name, CHAMPION, "1")
    client().set_registered_model_alias(name, CHALLENGER, "2")
    return name


@pytest.fixture
def decided(store: Store, versions: str) -> Callable[..., Decision]:
    """What the gate says of a version now, not recorded yet."""
    return lambda challenger, **changes: decision(versions, challenger, champion(store, versions), **changes)
