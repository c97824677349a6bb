"""The training loop: the same for every method, resumed from the newest whole checkpoint.

A training that was killed and resumed takes the very steps of an unbroken one, bit for bit on a CPU. Several processes
may take the steps together (semivl.data.ranks): then rank 0 alone tells, draws and keeps. No step waits for the device,
for S3 or for MLflow: losses stay on the device until they are logged, and the rest is done in the background.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from semivl.config import Config
from semivl.data import ranks
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image
from semivl.data.samples import Samples
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.data.stream import Batches, LabelMaps, Pools, Steps, batches
from semivl.data.tags import TagReader
from semivl.errors import TrainingError
from semivl.evaluation.overlay import overlay
from semivl.evaluation.window import segment
from semivl.methods import Method, as_planes, create
from semivl.nets.vlm import load_vlm
from semivl.settings import ROOT, home
from semivl.training.background import Background
from semivl.training.bundle import is_whole, save_bundle, train_key
from semivl.training.checkpoint import keep_newest, load_checkpoint, save_checkpoint
from semivl.training.compute import apply_compute, chosen_device, memory_advice, ran_out_of_memory
from semivl.training.feed import on_device
from semivl.training.guide import chosen_guide
from semivl.training.heartbeat import heartbeat
from semivl.training.image_maps import made_maps
from semivl.training.meter import Meter
from semivl.training.observe import Observer, Telling, Unobserved
from semivl.training.parent import load_parent
from semivl.training.pools import counts, training_pools
from semivl.training.profile import StepProfile
from semivl.training.remote import latest, upload
from semivl.training.shared import mean_losses, over_ranks, with_shared_norms
from semivl.training.step import build_optimizer, learning_rate, take_step
from semivl.training.stopping import PREEMPTED, sigterm

log = logging.getLogger(__name__)
PREVIEWS = 4


def train(
    config: Config,
    snapshot: Snapshot,
    store: Store,
    folder: Path,
    observer: Observer,
    parent: Path | None = None,
    key: str | None = None,
    guide: Path | None = None,
) -> Path:
    """The folder of the finished model, trained on `snapshot`; goes on from what `folder` holds already.

    Args:
        key: name of its checkpoints in S3; the train key where empty.
        parent: bundle of the model whose weights the first step starts from; `vlm` alone where empty. It is needed
            again to go on from a checkpoint.
        guide: bundle of the model that `guidance.model` names.

    Raises:
        ConfigError: the method or the vision-language model cannot be used.
        TrainingError: TRAIN001, TRAIN002, TRAIN012 or TRAIN013 no samples of a kind that the method needs, or what its
            survey of them finds, TRAIN003 the loss is no longer a number, TRAIN006 memory ran out, TRAIN007 no label
            maps to guide, TRAIN010 the parent is a model of another kind, TRAIN014 the guide knows other classes,
            TRAIN050 SIGTERM came; the steps done are kept.
    """
    bundle = folder / "model"
    if is_whole(bundle):
        return bundle
    folder.mkdir(parents=True, exist_ok=True)
    device = chosen_device(config.compute)
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    torch.manual_seed(config.train.seed)
    method = create(config.method)
    vlm = load_vlm(config.vlm, config.classes, config.train.crop, method.reads_text)
    model = method.build(config.classes, vlm, True, chosen_guide(config, vlm, finished=guide)).to(device).train()
    model = with_shared_norms(model, device)
    apply_compute(model, config.compute)
    pools = training_pools(snapshot, method)
    told = [f"Learned from: {counts(pools)}.", *method.survey(pools, config.classes)]
    if ranks.rank() > 0:
        observer = Unobserved()
    observer.samples(told)
    for sentence in told:
        log.info(sentence)
    if method.needs:
        optimizer = build_optimizer(model, config.train)
        key = key or train_key(config, snapshot.manifest.version)
        run = Run(config, method, model, optimizer, device, observer, folder, store, key)
        if parent:  # before a checkpoint too, which holds nothing of what is frozen
            load_parent(parent, config, model, vlm.student().architecture)
        start = run.resume()
        cache = ShardCache(store, snapshot.manifest.dataset, home() / "cache" / "shards")
        steps = prepared_steps(config, method, model, pools, cache)
        log.info("steps %d to %d on %s", start, config.train.steps, device)
        incoming = batches(steps, start, config.train.steps, config.compute.workers, device.type == "cuda")
        run.steps(start, incoming, preview_images(snapshot, cache))
    method.finish(model)
    if ranks.rank() == 0:
        save_bundle(bundle, config, model, vlm.student().architecture)
    return bundle


def prepared_steps(config: Config, method: Method, model: nn.Module, pools: Pools, cache: ShardCache) -> Steps:
    """The batches by step number, after what the method makes of each captioned image is made."""
    maps = method.image_maps(model)
    with ranks.first_alone():
        made = made_maps(maps, pools.captioned, cache, home() / "cache" / "maps") if maps else None
    return Steps(
        cache,
        pools.labelled,
        pools.unlabelled,
        config.train,
        method.partner,
        label_maps(config, pools.unlabelled),
        captioned=pools.captioned,
        rank=ranks.rank(),
        world=ranks.world(),
        image_maps=made,
        tags=TagReader(config.classes),
    )


@dataclass(frozen=True)
class Run:
    """The moving parts of one training."""

    config: Config
    method: Method
    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    observer: Observer
    folder: Path
    store: Store
    key: str

    def resume(self) -> int:
        """Puts the newest whole checkpoint of this machine or S3 in place; the steps it has done, 0 without one."""
        found = latest(self.store, self.key, self.folder, self.config.compute.checkpoints)
        return load_checkpoint(found, self.model, self.optimizer) if found else 0

    def steps(self, start: int, incoming: Iterable[Batches], previews: dict[str, Tensor]) -> None:
        """Takes the steps from `start` on, telling the observer on the way."""
        compute, method = self.config.compute, over_ranks(self.method, self.model)
        meter = Meter(compute, self.device)
        profile = StepProfile(compute.profile if ranks.rank() == 0 else None, self.folder)
        with (
            sigterm() as asked,
            Background(waiting=1) as uploads,
            Telling(self.observer) as telling,
            heartbeat(compute.heartbeat_seconds, self.folder) as beat,
        ):
            for step, batch in enumerate(on_device(meter.timed(incoming), self.device), start):
                done = step + 1
                profile.before(step)
                with self._room(step, uploads):
                    losses = meter.counted(lambda b=batch, s=step: self._step(method, b, s))
                    self._log(done, losses, meter, telling)
                trace = profile.after(step)
                if trace:
                    telling.artifact(trace)
                if ranks.anyone(asked.is_set()) and done < self.config.train.steps:
                    self._preempted(done, uploads, telling)
                self._preview(done, previews, uploads, telling)
                if done % self.config.train.checkpoint_every == 0 and done < self.config.train.steps:
                    telling.checkpoint(done, self._keep(done, uploads, telling))  # who may end the training here
                uploads.check()
                beat()

    def _step(self, method: Method, batch: Batches, step: int) -> dict[str, Tensor]:
        return take_step(
            method, self.model, self.optimizer, batch, self.config.train, step, self.config.compute.precision
        )

    def _log(self, done: int, losses: dict[str, Tensor], meter: Meter, telling: Telling) -> None:
        """Tells the curves' points, where the step is one of `log_every`.

        Raises:
            TrainingError: TRAIN003, the loss is no number.
        """
        c = self.config.train
        if done % c.log_every and done != c.steps:
            return
        values = mean_losses(losses)
        if not np.isfinite(values["total"]):
            what = f"the loss of step {done - 1} is {values['total']}."
            raise TrainingError("TRAIN003", what, "Lower train.learning_rate.")
        values |= {"learning_rate": learning_rate(c, done - 1, self.method.restarts)} | meter.read()
        telling.metrics(done, {f"train/{name}": value for name, value in values.items()})
        log.info("step %d of %d: loss %.4f, %.2f s a step", done, c.steps, values["total"], values["seconds_per_step"])

    def _preview(self, done: int, previews: dict[str, Tensor], uploads: Background, telling: Telling) -> None:
        c = self.config.train
        if ranks.rank() == 0 and (done % c.preview_every == 0 or done == c.steps):
            with self._room(done, uploads):
                telling.previews(done, self.overlays(previews))

    def _keep(self, done: int, uploads: Background, telling: Telling | None = None) -> Path:
        """Writes the checkpoint of the steps done and has it uploaded; rank 0's, the others have the same weights."""
        if telling:
            telling.wait()  # so that the curves are at least as long as the checkpoint
        if ranks.rank() > 0:
            return self.folder
        kept = self.config.compute.checkpoints
        path = save_checkpoint(self.folder, done, self.model, self.optimizer)
        uploads.do(lambda: upload(self.store, self.key, path, kept))
        keep_newest(self.folder, kept)  # of those before the last two none is still on its way
        return path

    def _preempted(self, done: int, uploads: Background, telling: Telling) -> None:
        """Keeps the steps done and ends.

        Raises:
            TrainingError: TRAIN050.
        """
        telling.checkpoint(done, self._keep(done, uploads, telling))
        what = f"the training was asked to end (SIGTERM); {done} steps are kept."
        raise TrainingError(PREEMPTED, what, "Run it again: it goes on from there.")

    @contextmanager
    def _room(self, done: int, uploads: Background) -> Iterator[None]:
        """Where memory runs out inside: keeps the `done` finished steps and advises.

        Raises:
            TrainingError: TRAIN006, memory ran out.
        """
        try:
            yield
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            kept = "no step was kept"
            if done and ranks.rank() == 0:
                kept = f"{done} steps are kept in {self._keep(done, uploads).name}"
            what = f"after step {done}, {self.device} had too little memory ({kept}): {str(error).splitlines()[0]}"
            raise TrainingError("TRAIN006", what, memory_advice(self.config)) from error

    @torch.inference_mode()
    def overlays(self, images: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """The model's present answer on the fixed validation images, drawn over them."""
        self.model.eval()
        drawn = {}
        for name, image in images.items():
            mask = segment(self._predict, image, len(self.config.classes), self.config.evaluation)
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            drawn[name] = overlay(pixels, mask.cpu().numpy())
        self.model.train()
        return drawn

    def _predict(self, images: Tensor) -> Tensor:
        return self.method.predict(self.model, images.to(self.device))


def preview_images(snapshot: Snapshot, cache: ShardCache) -> dict[str, Tensor]:
    """The first few validation images by key, (3, H, W) in [0, 1]."""
    rows = sorted(snapshot.rows(split="val"), key=lambda row: row.key)[:PREVIEWS]
    return {row.key: as_planes(decode_image(read_sample(cache, row)[0])) for row in rows}


def label_maps(config: Config, unlabelled: Samples) -> LabelMaps | None:
    """The label maps that guide, where there are any.

    Raises:
        TrainingError: TRAIN007, it holds a map of no unlabelled image.
    """
    if config.guidance.labels is None:
        return None
    folder = ROOT / config.guidance.labels
    found = sum((folder / f"{row.key}.png").is_file() for row in unlabelled)
    if not found:
        what = f"guidance.labels: {folder} holds no KEY.png of any of the {len(unlabelled)} unlabelled images."
        raise TrainingError("TRAIN007", what, "Name the label maps by the samples' keys.")
    log.info("label maps guide %d of %d unlabelled images", found, len(unlabelled))
    return LabelMaps(folder, len(config.classes))
