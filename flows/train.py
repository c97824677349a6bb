"""semivl-train: a validated snapshot becomes a registered model version, the challenger."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.runtime import flow_run

from flows.common import Overrides, artifact_key, log, retraining, semivl_flow, semivl_task
from semivl.config import Config, load
from semivl.data.quality import require_valid
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.methods import create
from semivl.registry.device_time import used
from semivl.registry.guide import guide_bundle, with_numbered_guide
from semivl.registry.package import bundle_of, register
from semivl.registry.retraining import with_named_parent
from semivl.registry.runs import finished_run, open_run
from semivl.registry.tracking import run_address, version_address
from semivl.settings import home
from semivl.training.bundle import train_key
from semivl.training.launch import train as fit


@semivl_flow(
    "semivl-train",
    "Validated snapshot -> model version with the alias challenger. Goes on where a killed run stopped.",
)
def train(experiment: str = "demo", overrides: Overrides | None = None, snapshot: str | None = None) -> int:
    """The number of the model version; that of the finished run where this training was done before.

    Args:
        experiment: name of a file in conf/experiment
        overrides: settings that differ from the experiment's
        snapshot: version to learn from; the current one where empty
    """
    config = with_numbered_guide(with_named_parent(load(experiment, overrides)))
    create(config.method)  # an unknown method is told before the work begins
    links = {"prefect_run": flow_run.get_flow_run_ui_url() or ""}
    allowance = used(config).seconds_left if retraining() else None  # who starts a training by hand is not bounded
    run_id, version = train_once(config, snapshot, links, allowance)
    model = config.registered_model
    create_link_artifact(
        version_address(model, version),
        link_text=f"{model} version {version}",
        key=artifact_key("model", experiment),
    )
    create_markdown_artifact(
        f"[Curves, pictures and parameters of the run]({run_address(run_id)})",
        key=artifact_key("mlflow-run", experiment),
    )
    return version


@semivl_task("train")
def train_once(
    config: Config, version: str | None, links: dict[str, str], allowance: float | None = None
) -> tuple[str, int]:
    """Run id and model version of this training, which is done once however often it is asked for.

    Args:
        allowance: seconds of training after which it is ended at a checkpoint, to go on another time.
    """
    store = open_store()
    snapshot = read(store, config.data.dataset, version)
    validation = require_valid(store, snapshot)
    key = train_key(config, snapshot.manifest.version)
    folder = home() / "runs" / key
    with alone(folder):
        done = finished_run(key)
        if done:
            number = register(done, folder / "model", config, snapshot.manifest)
            log.info("training %s is already done: %s version %d", key, config.registered_model, number)
            return done, number
        links = {name: link for name, link in links.items() if link}
        links["data_docs"] = store.address(validation.docs)
        links |= {f"data_docs_{suite}": store.link(page) for suite, page in validation.pages.items()}
        parent = bundle_of(config.registered_model, config.train.parent.version) if config.train.parent else None
        with open_run(config, snapshot.manifest, links, allowance) as run:
            log.info("training %s, %s", key, run_address(run.run_id))
            bundle = fit(config, snapshot, store, folder, run, parent, guide=guide_bundle(config))
            number = register(run.run_id, bundle, config, snapshot.manifest)
    log.info("training %s is done: %s version %d", key, config.registered_model, number)
    return run.run_id, number


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps a second training of the same key on this machine waiting; the lock dies with its holder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("the same training runs on this machine already; waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
