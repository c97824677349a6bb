"""`semivl rollback`, `decisions` and `freeze` as a user types them."""

import json

import pytest
from typer.testing import CliRunner

from semivl.cli import app
from semivl.errors import SemivlError
from semivl.registry.promotion import apply
from semivl.registry.reigns import champion
from tests.made_snapshots import grown, samples
from tests.registry.cases import decision
from tests.registry.conftest import versions  # noqa: F401
from tests.registry.test_frozen import masked


@pytest.fixture
def run(store, mlflow_server: str, monkeypatch: pytest.MonkeyPatch):
    """The command in this process, on the test's bucket; what it printed, and the error's words."""
    monkeypatch.setenv("COLUMNS", "220")

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, arguments)
        error = done.exception if isinstance(done.exception, SemivlError) else None
        assert (2 if error else done.exit_code) == code, done.output
        return f"{done.output}{error or ''}"

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
