"""A tiny model's bundle, photos for it, and the real scoring server of MLflow on a registered version of it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from semivl.config import ComputeConfig, Config, DataConfig, EvaluationConfig, GateConfig, TrainConfig, VlmConfig
from semivl.data.snapshot import Manifest
from tests.conftest import free_port
from tests.data import pictures
from tests.registry.conftest import METHOD, bundle  # noqa: F401
from tests.tiny import CLASSES

BYTES, PIXELS = 400_000, 100_000
"""the server's bounds of a request"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve sound photos of three sizes, one of them turned by EXIF."""
    folder = tmp_path / "photos"
    for number in range(12):
        write(folder / f"{'ab'[number % 2]}/{number:02}.jpg", photo(number))
    turned = pictures.exif(b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00", 1)
    write(folder / "turned.jpg", pictures.with_segments(photo(1), pictures.segment(0xE1, b"Exif\x00\x00" + turned)))
    return folder


def photo(number: int) -> bytes:
    return pictures.saved(pictures.pixels(number, 40 + 8 * (number % 3), 32), "JPEG")


def write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


class Server(NamedTuple):
    """A scoring server at work."""

    address: str
    pid: int
    model: str
    """NAME/NUMBER of the version that it serves"""

    def post(self, body: bytes, kind: str = "application/json") -> tuple[int, dict]:
        """Status and answer of a request."""
        request = urllib.request.Request(f"{self.address}/invocations", body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def ask(self, *images: object, **params: bool) -> tuple[int, dict]:
        records = {"dataframe_records": [{"image": image} for image in images]}
        return self.post(json.dumps(records | ({"params": params} if params else {})).encode())

    def memory(self) -> int:
        """Bytes that the server has had in memory at the most."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.fixture(scope="module")
def server(mlflow_server: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:  # noqa: F811
    """`mlflow models serve -m models:/NAME@champion`, as docs/prediction.md has it."""
    name, version = registered(bundle)
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    mlflow = str(Path(sys.executable).parent / "mlflow")
    command = [mlflow, "models", "serve", "-m", f"models:/{name}@champion", "--env-manager", "local"]
    bounds = {"OMP_NUM_THREADS": "1", "SEMIVL_SERVE_BYTES": str(BYTES), "SEMIVL_SERVE_PIXELS": str(PIXELS)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | bounds | {"PATH": path}, stdout=file, stderr=file, cwd=log.parent, start_new_session=True,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: pings(address), process, log)
        yield Server(address, scoring_process(process.pid), f"{name}/{version}")
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def registered(folder: Path) -> tuple[str, int]:
    """Name and number of a version of that bundle, which is the champion."""
    from semivl.registry.package import register
    from semivl.registry.runs import open_run
    from semivl.registry.tracking import client

    name = f"served-{uuid.uuid4().hex[:8]}"
    config = Config(
        name="tiny", model=name, data=DataConfig(dataset=name, source=Path("photos")), classes=CLASSES,
        vlm=VlmConfig(model="none"), method=METHOD, train=TrainConfig(),
        evaluation=EvaluationConfig(window=32, stride=24), compute=ComputeConfig(), gate=GateConfig(),
    )  # fmt: skip
    manifest = Manifest(
        dataset=name, version="0123456789abcdef", parent=None, classes=CLASSES, shards=(), samples=13,
        counts={"train/mask": 3}, quarantined=0, created_by="0",
    )  # fmt: skip
    with open_run(config, manifest, {}) as run:
        run.metrics(1, {"train/total": 1.0})
    version = register(run.run_id, folder, config, manifest)
    client().set_registered_model_alias(name, "champion", str(version))
    return name, version


def wait_until(true: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        if true():
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def pings(address: str) -> bool:
    try:
        return urllib.request.urlopen(f"{address}/ping", timeout=5).status == 200
    except OSError:
        return False


def scoring_process(pid: int) -> int:
    """The process that listens: the command itself, or its only child, which replaced its shell."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid
