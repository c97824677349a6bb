"""From a version back to its data, and forward again to the same weights."""

import subprocess
import uuid
from pathlib import Path

import pyarrow.csv
import pytest

from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.train import train
from flows.validate import validate
from semivl.config import load
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.errors import RegistryError
from semivl.evaluation.scores import split_digest
from semivl.registry.decision import key_of, record
from semivl.registry.lineage import Lineage, facts, lineage, training_samples
from semivl.registry.package import alias_version
from semivl.registry.provenance import commit, environment
from semivl.registry.report import publish_report
from semivl.registry.reproduce import Curve, reproduce
from semivl.registry.tracking import client
from semivl.registry.trained_on import TrainedOn
from semivl.settings import ROOT
from tests.loop import overrides
from tests.registry.cases import decision
from tests.test_cli import semivl


@pytest.fixture(scope="module")
def made(services) -> Lineage:
    """The lineage of a version that the small loop trained."""
    dataset = f"t-{uuid.uuid4().hex[:8]}"
    given = {"experiment": "demo", "overrides": overrides(dataset, steps=4)}
    snapshot = ingest(**given)
    validate(**given, snapshot=snapshot)
    version = train(**given, snapshot=snapshot)
    evaluate(**given, version=version, snapshot=snapshot)
    return lineage(f"semivl-{dataset}", version)


def test_the_lineage_names_data_definitions_settings_code_and_packages(made: Lineage) -> None:
    head = subprocess.check_output(["git", "-C", str(ROOT), "rev-parse", "HEAD"], text=True).strip()
    assert made.commit == commit() and made.commit.startswith(head)
    assert made.environment["torch"].startswith("2.") and made.environment["python"].startswith("3.")
    assert made.config.classes == load("demo").classes and made.config.train.steps == 4
    assert made.environment["threads"] == "1"
    machine = 6  # python, system, processor, device, cuda, threads
    assert ("packages", f"{len(made.environment) - machine} named in the run's environment.json") in facts(made)[
        "Code and surroundings"
    ]
    assert len(made.weights) == 64 and made.parent is None and made.method == "semivl"


def test_the_teacher_is_named_and_what_it_learned_from() -> None:
    seen = (("m", 2, "s2"), ("m", 1, "s1"), ("taught", 4, "s4"))
    guided = Lineage(
        model="m", version=2, run_id="0", registered="2026-11-28T05:00:00+00:00", experiment="demo", method="semivl",
        train_key="a", commit="b", environment={}, weights="c", parent=1, teacher="taught/4", config=load("demo"),
        seen=tuple(TrainedOn(dataset="d", snapshot=s, model=m, model_version=v) for m, v, s in seen),
    )  # fmt: skip
    told = facts(guided)
    assert ("guided by", "taught/4") in told["Training"]
    assert told["Data"] == [
        ("version 2 learned from", "d@s2"),
        ("version 1 learned from", "d@s1"),
        ("version 4 of taught learned from", "d@s4"),
    ]
    plain = facts(guided.model_copy(update={"teacher": ""}))
    assert "guided by" not in dict(plain["Training"])


def test_every_training_sample_is_listed_with_its_hashes(made: Lineage) -> None:
    own = made.seen[0]
    expected = {(r.sha256, r.mask_sha256) for r in read(open_store(), own.dataset, own.snapshot).rows(split="train")}
    table = training_samples(open_store(), made)
    assert set(zip(table["sha256"].to_pylist(), table["mask_sha256"].to_pylist(), strict=True)) == expected
    assert set(table["model_version"].to_pylist()) == {made.version}


def test_a_version_trained_again_has_the_same_weights(made: Lineage, tmp_path: Path) -> None:
    before = alias_version(made.model, "challenger")
    found = reproduce(open_store(), made, tmp_path / "again")
    assert found.equal and found.weights == made.weights
    assert found.largest_difference == 0 and found.loss_difference == 0 and found.steps_compared == 2
    assert found.miou_difference == 0 and found.unscored == ""
    assert found.differs == () and alias_version(made.model, "challenger") == before
    assert list(open_store().list(f"checkpoints/reproduce-{made.train_key}")) == []


def test_a_version_trained_again_otherwise_is_told_apart(made: Lineage, tmp_path: Path) -> None:
    changed = otherwise(made, seed=1).model_copy(
        update={"commit": "c0ffee", "environment": made.environment | {"threads": "7"}}
    )
    found = reproduce(open_store(), changed, tmp_path / "again")
    assert not found.equal and found.largest_difference > 0 and found.loss_difference
    assert found.miou_difference is not None
    assert found.differs[0].startswith("code: c0ffee then") and found.differs[1:] == ("threads: 7 then, 1 now",)


def otherwise(made: Lineage, **train: int) -> Lineage:
    """The lineage with other settings of the training."""
    changed = made.config.train.model_copy(update=train)
    return made.model_copy(update={"config": made.config.model_copy(update={"train": changed})})


def test_a_finished_reproduction_is_trained_anew_in_its_folder(made: Lineage, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    assert reproduce(open_store(), made, folder).equal
    (folder / "model" / "model.safetensors").write_bytes(b"of before")
    found = reproduce(open_store(), made, folder)
    assert found.equal and found.steps_compared == 2


def killed(made: Lineage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves what a reproduction leaves that was killed at its first checkpoint."""

    def kill(self: Curve, step: int, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Curve, "checkpoint", kill)
        reproduce(open_store(), made, folder)


def test_a_killed_reproduction_goes_on_and_compares_every_logged_step(
    made: Lineage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often, folder = otherwise(made, checkpoint_every=2), tmp_path / "again"
    killed(often, folder, monkeypatch)
    with (folder / "loss.jsonl").open("a") as journal:
        journal.write("\n[4, 99.0]\n[4, 0.")  # a step after the checkpoint, and one that a kill cut
    taken: list[int] = []
    keep = Curve.metrics
    monkeypatch.setattr(Curve, "metrics", lambda self, step, v: (taken.append(step), keep(self, step, v))[1])
    found = reproduce(open_store(), often, folder)
    assert taken == [4], "it went on"
    assert found.equal and found.loss_difference == 0 and found.steps_compared == 2


def test_what_was_killed_with_other_settings_is_not_gone_on_with(
    made: Lineage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(otherwise(made, checkpoint_every=2, seed=1), tmp_path / "again", monkeypatch)
    found = reproduce(open_store(), made, tmp_path / "again")
    assert found.equal and found.loss_difference == 0


def test_nothing_of_others_is_cleared(made: Lineage, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(RegistryError, match="REG028"):
        reproduce(open_store(), made, tmp_path)
    assert (tmp_path / "model").is_dir()


def test_a_version_without_scores_says_so(made: Lineage, tmp_path: Path) -> None:
    source = f"models:/{made.model}/{made.version}"
    unscored = client().create_model_version(made.model, source)
    found = reproduce(open_store(), made.model_copy(update={"version": int(unscored.version)}), tmp_path / "again")
    assert found.equal and found.miou_difference is None and "has no scores" in found.unscored


def test_the_threads_are_those_of_the_training() -> None:
    assert environment(3)["threads"] == "3" and int(environment()["threads"]) >= 1


def test_scores_and_decisions_are_shown(made: Lineage) -> None:
    own, store = made.seen[0], open_store()
    (kept,) = made.scores
    assert (kept.split, kept.snapshot, kept.digest) == (
        "val", own.snapshot, split_digest(read(store, own.dataset, own.snapshot)),
    )  # fmt: skip
    decided = record(store, decision(made.model, made.version, None))
    try:
        assert lineage(made.model, made.version).decisions == (decided,)
        said = " ".join(semivl("lineage", f"{made.model}/{made.version}").stdout.split())
    finally:
        store.delete(key_of(made.model, decided.name))
    assert f"{kept.miou:.2f} mIoU" in said and "promoted: " in said


def test_the_report_has_every_tab(made: Lineage) -> None:
    page = publish_report(made.config, made.version, read(open_store(), made.seen[0].dataset)).read_text()
    assert made.weights in page and made.commit in page
    for words in ("The gate has not decided", "no other champion", "IoU per class", "Reliability", "semivl drift"):
        assert words in page, words


def test_the_command_shows_the_lineage_and_writes_the_samples(made: Lineage, tmp_path: Path) -> None:
    file = tmp_path / "samples.csv"
    done = semivl("lineage", f"models:/{made.model}/{made.version}", "--samples", str(file))
    assert done.returncode == 0 and made.train_key in done.stdout and made.method in done.stdout, done.stderr
    assert len(pyarrow.csv.read_csv(file)) == len(training_samples(open_store(), made))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lineage", "nothing"], ["PRED001", "nothing", "NAME/7"]),
        (["lineage", "nothing/3"], ["REG004", "nothing"]),
        (["reproduce", "nothing@champion"], ["REG004", "nothing"]),
        (["lineage", "nothing/3", "--samples", "x.txt"], ["CONF031", "x.txt"]),
    ],
)
def test_what_cannot_be_traced_is_told(made: Lineage, arguments: list[str], words: list[str]) -> None:
    done = semivl(*arguments)
    assert done.returncode == 2 and all(word in done.stderr for word in words), done.stderr


def test_a_version_without_a_run_is_told(made: Lineage) -> None:
    name = f"t-{uuid.uuid4().hex[:8]}"
    client().create_registered_model(name)
    version = client().create_model_version(name, "s3://nowhere/model")
    with pytest.raises(RegistryError, match="REG026"):
        lineage(name, int(version.version))
