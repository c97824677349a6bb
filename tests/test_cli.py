"""The command as a user types it: a process of its own, its output and its exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from semivl.config import Config
from tests.conftest import free_port

SEMIVL = Path(sys.executable).parent / "semivl"


def semivl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SEMIVL, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def test_help_lists_the_commands_and_imports_nothing_heavy():
    done = semivl("--help")
    assert done.returncode == 0
    for command in ("up", "down", "status", "doctor", "run", "show", "scenes", "pretrain", "demo"):
        assert f" {command} " in done.stdout
    loaded = "import semivl.cli, sys; print({'torch', 'prefect', 'mlflow', 'boto3', 'pandas'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True) == "set()\n"


def test_show_prints_the_whole_experiment_with_the_changes():
    done = semivl("show", "demo", "-s", "train.steps=7")
    config = Config.model_validate(yaml.safe_load(done.stdout))
    assert (config.name, config.train.steps) == ("demo", 7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "dmeo"], ["CONF001", "dmeo", "demo"]),
        (["run", "demo", "-s", "train.stepz=3"], ["CONF003", "train.stepz", "did you mean steps?"]),
        (["run", "demo", "-s", "train.steps=0"], ["CONF003", "train.steps"]),
        (["run", "demo", "-s", "train.steps"], ["CONF005", "train.steps", "KEY=VALUE"]),
        (["show", "demo", "-s", "train=3"], ["CONF003", "train"]),
    ],
)
def test_what_a_user_gets_wrong_ends_in_one_line_with_code_and_remedy(arguments, words):
    done = semivl(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)
    assert "Traceback" not in done.stderr + done.stdout


def test_yaml_that_cannot_be_read_names_the_file(tmp_path):
    from semivl.config import CONF

    broken = CONF / "experiment" / f"broken-{os.getpid()}.yaml"
    broken.write_text("data: [scenes\n")
    try:
        done = semivl("show", broken.stem)
    finally:
        broken.unlink()
    assert done.returncode == 2 and done.stderr.startswith("error: CONF002") and broken.name in done.stderr


def test_without_prefect_the_way_to_start_it_is_said():
    done = semivl("run", "demo", SEMIVL_PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")
    assert done.returncode == 2
    assert done.stderr.startswith("error: SERV101") and "semivl up" in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_says_what_does_not_run(tmp_path):
    done = semivl("status", SEMIVL_HOME=str(tmp_path), SEMIVL_S3_PORT="20000", COLUMNS="200")
    assert done.returncode == 0
    assert "stopped" in done.stdout and "voc-subset" in done.stdout


def test_scenes_are_made_once(tmp_path):
    few = ["scenes", str(tmp_path / "s"), "--labelled", "2", "--unlabelled", "1", "--evaluation", "1", "--size", "48"]
    assert semivl(*few).returncode == 0
    made = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "s").rglob("*.*g")}
    assert len(made) == 4 + 3
    assert semivl(*few).returncode == 0
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "s").rglob("*.*g")} == made


def test_scenes_stay_out_of_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    done = semivl("scenes", str(tmp_path))
    assert done.returncode == 2 and done.stderr.startswith("error: DATA060")
