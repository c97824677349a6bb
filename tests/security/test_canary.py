"""The canary: secrets that runs are given are found in nothing that they leave behind, nor in what they say."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from semivl.data.store import open_store
from semivl.settings import home, settings
from tests.loop import overrides, parameters

BIN = Path(sys.executable).parent
CANARY = f"canary-{uuid.uuid4().hex}"
OWN = ("services.env", "services.new")
"""files for this user's eyes alone, which hold the credentials"""
pytestmark = [pytest.mark.usefixtures("services"), pytest.mark.slow]


def said(*command: str, **more: str) -> str:
    """What a command prints, in an environment with secrets of other tools in it."""
    names = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY", "HF_TOKEN", "SEMIVL_CANARY")
    env = {**os.environ, **dict.fromkeys(names, CANARY), **more}
    done = subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True, timeout=500, env=env)
    return done.stdout + done.stderr


def secrets() -> dict[str, bytes]:
    key = settings().s3_secret_key
    assert key is not None
    return {"S3's secret key": key.get_secret_value().encode(), "the canary": CANARY.encode()}


def holding(places: dict[str, bytes]) -> list[str]:
    return [f"{name} holds {what}" for name, body in places.items() for what, s in secrets().items() if s in body]


def test_what_holds_a_secret_is_named():
    assert holding({"a log": b"key=" + CANARY.encode(), "another": b"nothing"}) == ["a log holds the canary"]


def test_secrets_are_found_nowhere_after_a_run_and_after_runs_that_fail(dataset="t-canary"):
    run, elsewhere = ("prefect", "deployment", "run"), {"SEMIVL_S3_SECRET_KEY": CANARY}
    good, bad = (json.dumps(parameters(dataset, source=source)) for source in (None, Path("/nowhere")))
    here = str(settings().s3_endpoint)
    look = ("semivl", "data", "log", "--dataset", dataset)
    texts = {
        "a run": said(*run, "semivl-pipeline/local", "--params", good, "--watch"),
        "a run without a source": said(*run, "semivl-ingest/local", "--params", bad, "--watch"),
        "semivl run": said("semivl", "run", "demo", "-s", f"data.dataset={dataset}", "-s", "data.source=/nowhere"),
        "semivl status": said("semivl", "status"),
        "semivl doctor": said("semivl", "doctor"),
        "semivl show": said("semivl", "show", "demo"),
        "a wrong key": said(*look, SEMIVL_S3_ENDPOINT=here, SEMIVL_S3_ACCESS_KEY="nobody", **elsewhere),
        "a server that is away": said(*look, SEMIVL_S3_ENDPOINT="http://127.0.0.1:9", **elsewhere),
    }
    assert "champion" in texts["a run"] or "Completed" in texts["a run"]
    assert "DATA101" in texts["a run without a source"] + texts["semivl run"]
    assert "STORE" in texts["a wrong key"] and "STORE" in texts["a server that is away"]
    assert not holding({name: text.encode() for name, text in texts.items()})
    store = open_store()
    objects = {key: store.get(key) for key in store.list("")}
    assert len(objects) > 20
    assert not holding(objects)
    files = [p for p in home().rglob("*") if p.is_file() and not p.is_symlink() and p.name not in OWN]
    assert {"prefect", "mlflow"} <= {p.relative_to(home()).parts[0] for p in files}
    assert not holding({str(p.relative_to(home())): p.read_bytes() for p in files})
    assert overrides(dataset)["model"] in {key.split("/")[2] for key in objects if key.startswith("scores/")}
