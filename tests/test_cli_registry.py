"""`semivl rollback`, `decisions` and `freeze` as a user types them."""

import json

import pytest

from semivl.registry.promotion import apply
from semivl.registry.reigns import champion
from semivl.settings import Settings
from tests.made_snapshots import grown, samples
from tests.registry.cases import decision
from tests.registry.conftest import versions  # noqa: F401
from tests.registry.test_frozen import masked
from tests.test_cli import semivl


@pytest.fixture
def run(store, s3: Settings, mlflow_server: str):
    """Runs `semivl` on the test's bucket; what it printed."""
    keys = {"ACCESS_KEY": s3.s3_access_key, "SECRET_KEY": s3.s3_secret_key}
    environment = {f"SEMIVL_S3_{name}": key.get_secret_value() for name, key in keys.items() if key}
    environment |= {"SEMIVL_S3_ENDPOINT": str(s3.s3_endpoint), "SEMIVL_S3_BUCKET": store.bucket}

    def run(*arguments: str, code: int = 0) -> str:
        done = semivl(*arguments, **environment, SEMIVL_MLFLOW_URI=mlflow_server, COLUMNS="220")
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return run


def test_decisions_are_listed_and_a_rollback_is_told(run, store, versions):  # noqa: F811
    for version, lead in ((2, 0.1), (3, -0.1)):
        apply(store, decision(versions, version, champion(store, versions), lead))
    lines = [line.split() for line in run("decisions", versions).splitlines()]
    third, second = (next(line for line in lines if len(line) > 3 and line[1] == number) for number in "32")
    assert "promoted" in second and {"kept", "out", "GATE004"} <= set(third)
    told = json.loads(run("decisions", versions, "--json", "--version", "3"))
    assert [one["challenger"] for one in told] == [3] and told[0]["rules"][0]["code"] == "GATE001"
    assert "version 1 is champion again, in place of version 2" in run(
        "rollback", versions, "--reason", "it sees ghosts", "--by", "ann"
    )
    assert "it sees ghosts" in run("decisions", versions)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--reason", " "), "REG025"), (("--reason", "x"), "REG023"), (("--reason", "x", "--to", "2"), "REG024"),
        ((), "--reason"),
    ],
)  # fmt: skip
def test_a_rollback_that_cannot_be_is_told(run, versions, arguments, code):  # noqa: F811
    assert code in run("rollback", versions, *arguments, code=2)


def test_a_model_without_decisions_has_none(run):
    assert "0 decisions" in run("decisions", "no-such-model")


def test_the_evaluation_set_is_moved_with_its_reason(run, store):
    from semivl.config import load
    from semivl.registry.frozen import frozen_set

    config = load("demo")
    classes = config.classes
    snapshot = grown(store, config.data.dataset, classes, masked(samples()))
    told = run("freeze", "demo", "--reason", "more dogs", "--by", "ann")
    assert "judged on 3 images" in told and snapshot.manifest.version in told
    kept = frozen_set(store, config.registered_model)
    assert kept and (kept.reason, kept.by) == ("more dogs", "ann")
    assert "before: 3 of" in run("freeze", "demo", "--reason", "again")
    assert "DATA202" in run("freeze", "demo", "--reason", "x", "--snapshot", "f" * 16, code=2)
