"""`semivl data`, `forget` and `gc` as a user types them: what they print, and how they end."""

import json
import os
import pty
import subprocess

import pytest

from semivl.data import snapshot
from semivl.data.ingest import ingest
from semivl.data.shards import shard_key
from tests.data.conftest import classes, config, dataset, environment, make  # noqa: F401
from tests.data.test_removal import key_at
from tests.test_cli import SEMIVL, semivl


@pytest.fixture
def versions(config, classes, store, make, environment) -> list[str]:  # noqa: F811
    first = ingest(config, classes)
    make.photo(config.source / "images/new[1].jpg", 77)
    make.mask(config.source / "masks/u004.png")
    return [first.version, ingest(config, classes).version]


@pytest.fixture
def run(config, environment):  # noqa: F811
    """Runs `semivl` on the test's dataset; the lines it printed."""

    def run(*arguments: str, code: int = 0) -> list[str]:
        done = semivl(*arguments, "--dataset", config.dataset, **environment, COLUMNS="220")
        assert done.returncode == code, done.stderr
        return (done.stdout + done.stderr).splitlines()

    return run


def test_log_lists_the_versions_newest_first(run, versions):
    _, _, newest, oldest = run("data", "log")
    assert newest.split()[:2] == versions[::-1] and oldest.split()[:2] == [versions[0], "-"]
    assert "+1 ~1" in newest and "+13" in oldest and "5 train/mask, 6 train/none, 3 val/mask" in newest


def test_diff_tells_two_versions_apart_in_words_and_as_json(run, versions, config):  # noqa: F811
    lines = run("data", "diff", *versions)
    assert {"added: 1", "removed: 0", "changed: 1"} <= set(lines)
    assert any("images/new[1].jpg" in line for line in lines)
    assert any(line.split() == ["train/mask", "4", "5"] for line in lines)
    assert any(line.startswith("cat ") and line.count("%") == 2 for line in lines)
    found = json.loads("\n".join(run("data", "diff", "--json", *versions)))
    assert [row["key"] for row in found["added"]] == [key_at(config, "new[1].jpg")]
    assert "mask_sha256" in found["changed"][0]["what"]
    assert sum(share["later"] for share in found["class_shares"]) == pytest.approx(1)


def test_show_tells_the_lineage_and_saves_the_files(run, versions, config, tmp_path):  # noqa: F811
    key = key_at(config, "u004.jpg")
    for named in (key, "images/u004.jpg"):
        text = "\n".join(run("data", "show", named, "--save", str(tmp_path / "out")))
        assert key in text and f"{versions[1]}" in text and "gained its mask" in text and "came" in text
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"{key}.jpg", f"{key}.mask.png"}
    assert "DATA211" in run("data", "show", "images/none.jpg", code=2)[-1]


def test_verify_ends_in_1_and_names_what_is_damaged(run, versions, store, config):  # noqa: F811
    assert run("data", "verify")[-1].endswith("nothing is damaged")
    assert run("data", "verify", "--quick")[-1].endswith("nothing is damaged")
    row = snapshot.read(store, config.dataset).rows()[0]
    body = bytearray(store.get(shard_key(config.dataset, row.shard)))
    body[row.image_offset] ^= 1
    store.put(shard_key(config.dataset, row.shard), bytes(body))
    lines = run("data", "verify", code=1)
    (told,) = [line for line in lines if line.startswith("DAMAGED")]
    assert row.shard in told and row.source in told and "semivl-ingest" in told
    assert lines[-1].endswith("1 damaged")
    assert run("data", "verify", "--quick")[-1].endswith("nothing is damaged")


def test_verify_shows_a_bar_on_a_terminal(versions, config, environment):  # noqa: F811
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [SEMIVL, "data", "verify", "--dataset", config.dataset],
        env={**os.environ, **environment, "TERM": "xterm", "COLUMNS": "100"},
        stdout=follower,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        seen += chunk
        if not chunk:
            break
    os.close(leader)
    assert process.wait() == 0
    assert "100%" in seen.decode() and "looked at" not in seen.decode()


def test_forget_tells_what_still_holds_the_bytes_and_gc_removes_it(run, versions, store, config):  # noqa: F811
    key = key_at(config, "u001.jpg")
    photo = (config.source / "images/u001.jpg").read_bytes()
    text = "\n".join(run("forget", key))
    assert "1 samples forgotten" in text and "semivl gc" in text and all(v in text for v in versions)
    assert "images/u001.jpg in the source" in text
    assert "DATA213" in run("forget", code=2)[-1]
    plan = run("gc", "--dry-run")
    assert any(photo in store.get(k) for k in store.list(f"datasets/{config.dataset}/shards/"))
    assert run("gc")[0] == plan[0].replace("would remove", "removed")
    assert not any(photo in store.get(k) for k in store.list(f"datasets/{config.dataset}/shards/"))
    assert "holds them" not in "\n".join(run("forget", key)).replace("may hold them", "")


def test_forget_now_leaves_nothing_in_the_store(run, versions, store, config):  # noqa: F811
    photo = (config.source / "images/m000.jpg").read_bytes()
    text = "\n".join(run("forget", "--source", "images/m000.jpg", "--now"))
    assert all(v in text for v in versions)
    assert not any(photo in store.get(k) for k in store.list(f"datasets/{config.dataset}/shards/"))
    assert run("data", "verify")[-1].endswith("nothing is damaged")
    assert len(run("data", "log")) == 3  # title, names, the one version that is left


def test_gc_keeps_what_it_is_told_to(run, versions):
    text = "\n".join(run("gc", "--keep", "0", "--grace", "0", "--pin", versions[0]))
    assert "snapshots  none" in text
    text = "\n".join(run("gc", "--keep", "0", "--grace", "0"))
    assert f"snapshots  {versions[0]}" in text
    assert "DATA202" in run("data", "show", "images/m000.jpg", "--version", versions[0], code=2)[-1]


def test_dataset_is_the_experiments_where_none_is_named(environment):  # noqa: F811
    done = semivl("data", "log", "--experiment", "demo", **environment)
    assert (done.returncode, "DATA201" in done.stderr) == (2, True)
    assert "CONF001" in semivl("data", "log", "--experiment", "dmeo", **environment).stderr
