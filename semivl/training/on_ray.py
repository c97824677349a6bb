"""A training on a Ray cluster: the same function under Ray Train's TorchTrainer, on as many workers as there are.

Where a worker or a node dies, Ray starts the workers anew on what is left, at most `compute.restarts` times, and they
go on from the last checkpoint in S3; when nodes come back, it does so again. Nodes share nothing but S3: what rank 0
tells comes through a queue of the cluster, the finished model through S3. Each node needs the settings that lead to S3
(SEMIVL_S3_...) and the files that the experiment names: the vision-language model, and a guide or a parent.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from semivl.config import ComputeConfig
from semivl.data import ranks
from semivl.data.store import Store, open_store
from semivl.errors import ConfigError, SemivlError, TrainingError
from semivl.settings import home
from semivl.training.bundle import CARD, WEIGHTS
from semivl.training.job import Job
from semivl.training.observe import Observer
from semivl.training.relay import Relay, as_fault, pass_on
from semivl.training.stopping import ask_to_end, sigterm

log = logging.getLogger(__name__)
_POLL = 0.2
_PATIENCE = 24 * 3600
"""seconds for a rank that is slow: rank 0 may make maps of all images before the first step"""


def train(job: Job, observer: Observer) -> Path:
    """The folder of the finished model.

    Raises:
        ConfigError: CONF070, Ray is not installed.
        TrainingError: TRAIN052, workers died more often than `compute.restarts`; what `trainer.train` raises in one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    try:
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError as error:
        what = "compute.launch is ray, but Ray is not installed."
        raise ConfigError("CONF070", what, "`pip install 'semivl[ray]'`, or use compute torchrun.") from error
    with _connected(job.config.compute), sigterm() as asked, ThreadPoolExecutor(1) as fitting:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # on this node, whose death ends the training anyhow
        told, stop = (Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here}) for _ in range(2))
        fitted = fitting.submit(_trainer(job, told, stop, ray.cluster_resources()).fit)
        try:
            fault = _watch(fitted, told, observer, asked, stop)
        except BaseException:  # the observer ends the training, or somebody does: its steps are kept
            stop.put(True)
            raise
        if fault:
            raise fault
        if fitted.exception():
            what = f"processes of the training died: {fitted.exception()}"
            raise TrainingError("TRAIN052", what, "Run it again: it goes on from the last checkpoint.")
    _bring(open_store(), job)
    return job.folder / "model"


@contextmanager
def _connected(config: ComputeConfig) -> Iterator[None]:
    """The cluster at `compute.ray`; where somebody is connected already, his."""
    import ray

    ours = not ray.is_initialized()
    if ours:
        ray.init(config.ray, log_to_driver=False, configure_logging=False)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _trainer(job: Job, told: Any, stop: Any, resources: Mapping[str, float]) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    config = job.config.compute
    gpus = config.device == "cuda"
    there = max(1, int(resources.get("GPU" if gpus else "CPU", 1)))
    most = there if config.processes == "auto" else config.processes
    nccl = config.backend == "nccl" or (config.backend == "auto" and gpus)
    return TorchTrainer(
        as_rank,
        train_loop_config={"job": job.model_dump_json(), "told": told, "stop": stop},
        torch_config=TorchConfig("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout_s=_PATIENCE),
        scaling_config=ScalingConfig(num_workers=(1, most) if most > 1 else 1, use_gpu=gpus),
        run_config=RunConfig(
            name=job.key,
            storage_path=str(Path(tempfile.gettempdir()) / "semivl-ray"),  # for Ray's own notes
            failure_config=FailureConfig(max_failures=config.restarts),
        ),
    )


def as_rank(given: dict[str, Any]) -> None:
    """What each worker runs. A fault that a user can mend is told and not raised: Ray would try again."""
    job, told = Job.model_validate_json(given["job"]), given["told"]
    relay = Relay(told.put)
    if ranks.rank() == 0:
        relay.listen()
        Thread(target=lambda: given["stop"].get() and ask_to_end(), daemon=True).start()
    try:
        bundle = job.run(relay, home() / "runs" / job.key)
    except SemivlError as fault:
        relay.fault(fault)
        return
    if ranks.rank() == 0:
        for name in (WEIGHTS, CARD):
            open_store().put(_place(job, name), bundle / name)


def _watch(fitted: Future, told: Any, observer: Observer, asked: Event, stop: Any) -> SemivlError | None:
    """Passes on what the ranks tell, and SIGTERM to them, until they end; a fault that ended one."""
    from ray.util.queue import Empty

    fault, handed_on = None, False
    while not (fitted.done() and told.empty()):
        if asked.is_set() and not handed_on:
            stop.put(True)
            handed_on = True
        try:
            what = told.get(timeout=_POLL)
        except Empty:
            continue
        if what["kind"] == "fault":
            fault = fault or as_fault(what)
        else:
            pass_on(what, observer)
    return fault


def _bring(store: Store, job: Job) -> None:
    """The finished model from S3; its card last, so that a bundle with a card is whole."""
    (job.folder / "model").mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CARD):
        store.download(_place(job, name), job.folder / "model" / name)
    for name in (WEIGHTS, CARD):
        store.delete(_place(job, name))


def _place(job: Job, name: str) -> str:
    return f"checkpoints/{job.key}-model/{name}"
