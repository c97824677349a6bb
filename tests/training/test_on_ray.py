"""A training on two Ray nodes: one that loses a node ends as one that nobody touched; SIGTERM leaves a checkpoint."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from semivl.config import load
from semivl.data.snapshot import read
from semivl.settings import settings
from semivl.training.launch import train
from semivl.training.observe import Unobserved
from tests.training.launches import losses, small, training, wait_for_step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
STEPS = 40
ENDLESS = 1_000_000


class Notes(Unobserved):
    """Keeps the losses, the last one of each step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.losses[step] = values["train/total"]


@pytest.fixture
def nodes(store, tmp_path, monkeypatch):
    """A cluster whose head does no work, and two nodes that share nothing but S3; shut down whatever happens."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    now = settings()
    assert now.s3_access_key and now.s3_secret_key
    for name, value in {
        "S3_ENDPOINT": now.s3_endpoint, "S3_BUCKET": store.bucket,
        "S3_ACCESS_KEY": now.s3_access_key.get_secret_value(), "S3_SECRET_KEY": now.s3_secret_key.get_secret_value(),
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SEMIVL_{name}", str(value))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        two = [cluster.add_node(num_cpus=1, env_vars={"SEMIVL_HOME": str(tmp_path / name)}) for name in ("one", "two")]
        yield cluster, two
    finally:
        ray.shutdown()
        cluster.shutdown()


def learned(config, store, folder: Path, told: Notes) -> Path:
    return train(config, read(store, config.data.dataset), store, folder, told)


def test_training_survives_the_death_of_a_node(nodes, store, tmp_path):
    cluster, (_, second) = nodes
    given = small(STEPS, "demo")
    given["overrides"]["train"]["learning_rate"] = 1e-5  # so that rounding does not grow beyond the tolerance
    given["overrides"]["compute"] |= {
        "launch": "ray", "ray": cluster.address, "processes": 2, "restarts": 2, "heartbeat_seconds": 60,
    }  # fmt: skip
    config = load(given["experiment"], given["overrides"])
    broken, unbroken, killed = Notes(), Notes(), []

    def kill() -> None:
        while max(broken.losses, default=0) < 7:  # a checkpoint is kept after 5
            time.sleep(0.1)
        killed.append(max(broken.losses))
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    bundle = learned(config, store, tmp_path / "broken", broken)
    assert (bundle / "model.json").is_file() and killed and killed[0] < STEPS
    for key in list(store.list("checkpoints/")):
        store.delete(key)
    here = config.model_copy(update={"compute": config.compute.model_copy(update={"launch": "here"})})
    learned(here, store, tmp_path / "unbroken", unbroken)
    assert broken.losses == pytest.approx(unbroken.losses, rel=1e-5) and len(unbroken.losses) == STEPS
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_sigterm_to_the_driver_leaves_a_checkpoint_from_which_the_next_run_goes_on(nodes, store, tmp_path):
    cluster, _ = nodes
    given = small(ENDLESS, launch="ray", ray=cluster.address, processes=2)
    given["overrides"]["train"]["checkpoint_every"] = ENDLESS - 1
    kept = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        with training(given, folder) as driver:
            wait_for_step(driver, folder, max(kept, default=0) + 3)
            assert len(training_workers(cluster)) == 2
            driver.send_signal(signal.SIGTERM)
            words = driver.communicate(timeout=60)[1]
        assert driver.returncode == 75 and "TRAIN050" in words, words[-3000:]
        assert nothing_trains(cluster, 20)
        kept.append(newest_in(store))
        assert kept[-1] >= max(losses(folder))
        assert f"{kept[-1]} steps are kept" in words
    assert min(losses(tmp_path / "second")) == kept[0] + 1


def newest_in(store) -> int:
    """The steps that the newest checkpoint in S3 has done."""
    return max(int(key.split("/")[2].removeprefix("step-")) for key in store.list("checkpoints/") if "/step-" in key)


def nothing_trains(cluster, seconds: float) -> bool:
    """Whether all workers of the cluster's nodes that took steps end in time."""
    until = time.monotonic() + seconds
    while (left := training_workers(cluster)) and time.monotonic() < until:
        time.sleep(0.2)
    return not left


def training_workers(cluster) -> list[psutil.Process]:
    """The processes that Ray Train runs on the cluster's nodes."""
    nodes = [info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]]
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.ppid() in nodes and process.status() != psutil.STATUS_ZOMBIE
            found += [process] if ours and "RayTrainWorker" in " ".join(process.cmdline()) else []
        except psutil.NoSuchProcess:
            continue
    return found
