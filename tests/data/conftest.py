"""Real pictures, source folders and settings for the tests of the data's way."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from semivl.config import ClassDefinition, Classes, DataConfig
from semivl.data.store import Store
from semivl.settings import settings


@pytest.fixture(scope="session")
def classes() -> Classes:
    return Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "dog")))  # pyright: ignore[reportCallIssue]


def _pixels(seed: int, width: int, height: int) -> np.ndarray:
    """Smooth colours that differ from seed to seed."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _photo(path: Path, seed: int = 0, size: tuple[int, int] = (48, 32), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(seed, *size)).save(path, **options)
    return path


def _mask(path: Path, ids: np.ndarray | None = None, size: tuple[int, int] = (48, 32), mode: str = "P") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ids is None:
        ids = np.zeros(size[::-1], np.uint8)
        ids[:, size[0] // 2 :], ids[0] = 1, 255
    image = Image.fromarray(ids)
    if mode == "P":
        image = image.convert("L")
        image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)
    return path


def _source(root: Path, labelled: int = 4, evaluation: int = 3, unlabelled: int = 6, seed: int = 0) -> Path:
    """A source in the layout `folder`; `val.txt` lists its evaluation images."""
    names = [f"m{i:03}" for i in range(labelled)] + [f"v{i:03}" for i in range(evaluation)]
    for place, name in enumerate(names):
        _photo(root / "images" / f"{name}.jpg", 1000 * seed + place)
        _mask(root / "masks" / f"{name}.png")
    for place in range(unlabelled):
        _photo(root / "images" / f"u{place:03}.jpg", 1000 * seed + 500 + place)
    (root / "val.txt").write_text("".join(f"{n}\n" for n in names[labelled:]))
    return root


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Writes pictures: photo(path, seed, size), mask(path, ids, size, mode), source(root, ...)."""
    return SimpleNamespace(photo=_photo, mask=_mask, source=_source, pixels=_pixels)


@pytest.fixture
def environment(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The settings of this process and of those it starts point at the tests' S3."""
    chosen = store.settings
    assert chosen.s3_endpoint and chosen.s3_access_key and chosen.s3_secret_key
    values = {
        "SEMIVL_HOME": str(tmp_path / "home"),
        "SEMIVL_S3_ENDPOINT": chosen.s3_endpoint,
        "SEMIVL_S3_BUCKET": chosen.s3_bucket,
        "SEMIVL_S3_ACCESS_KEY": chosen.s3_access_key.get_secret_value(),
        "SEMIVL_S3_SECRET_KEY": chosen.s3_secret_key.get_secret_value(),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield values
    settings.cache_clear()


@pytest.fixture
def dataset(request: pytest.FixtureRequest) -> str:
    """A dataset name that no other test has."""
    _taken.append(request.node.nodeid)
    return f"test-{len(_taken)}"


_taken: list[str] = []


@pytest.fixture
def config(environment: dict[str, str], dataset: str, tmp_path: Path) -> DataConfig:
    """A source of 4 labelled, 3 evaluation and 6 unlabelled images, in shards of 5."""
    source = _source(tmp_path / "source")
    return DataConfig(dataset=dataset, source=source, evaluation_list="val.txt", shard_samples=5)  # pyright: ignore[reportCallIssue]
