"""The training loop: the same for every method, resumed from the newest whole checkpoint.

A training that was killed and resumed takes the very steps of an unbroken one, bit for bit on a CPU.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from semivl.config import ComputeConfig, Config
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
from semivl.methods import Method, create
from semivl.nets.decoder import Spatial, Up, decode_in_chunks
from semivl.nets.encoder import Block
from semivl.nets.vlm import load_vlm
from semivl.settings import ROOT, home
from semivl.training.bundle import is_whole, save_bundle, train_key
from semivl.training.checkpoint import fetch, load_checkpoint, newest_whole, save_checkpoint, upload
from semivl.training.guide import chosen_guide
from semivl.training.image_maps import made_maps
from semivl.training.parent import load_parent
from semivl.training.pools import counts, training_pools
from semivl.training.step import build_optimizer, learning_rate, take_step

log = logging.getLogger(__name__)
PREVIEWS = 4


class Observer(Protocol):
    """Who is told how a training goes."""

    def samples(self, told: Sequence[str]) -> None: ...

    def metrics(self, step: int, values: dict[str, float]) -> None: ...

    def previews(self, step: int, images: dict[str, np.ndarray]) -> None: ...

    def checkpoint(self, step: int, path: Path) -> None: ...


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
        parent: bundle of the model whose weights the first step starts from; `vlm` alone where empty.
        guide: bundle of the model that `guidance.model` names.

    Raises:
        ConfigError: the method or the vision-language model cannot be used.
        TrainingError: TRAIN001, TRAIN002, TRAIN012 or TRAIN013 no samples of a kind that the method needs, or what its
            survey of them finds, TRAIN003 the loss is no longer a number, TRAIN006 memory ran out, TRAIN007 no label
            maps to guide, TRAIN010 the parent is a model of another kind, TRAIN014 the guide knows other classes.
    """
    bundle = folder / "model"
    if is_whole(bundle):
        return bundle
    device = chosen_device(config.compute)
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    torch.manual_seed(config.train.seed)
    method = create(config.method)
    vlm = load_vlm(config.vlm, config.classes, config.train.crop, method.reads_text)
    model = method.build(config.classes, vlm, True, chosen_guide(config, vlm, finished=guide)).to(device).train()
    apply_compute(model, config.compute)
    pools = training_pools(snapshot, method)
    told = [f"Learned from: {counts(pools)}.", *method.survey(pools, config.classes)]
    observer.samples(told)
    for sentence in told:
        log.info(sentence)
    if method.needs:
        optimizer = build_optimizer(model, config.train)
        key = key or train_key(config, snapshot.manifest.version)
        run = Run(config, method, model, optimizer, device, observer, folder, store, key)
        start = run.resume()
        if parent and not start:  # a checkpoint has left the parent behind
            load_parent(parent, config, model, vlm.student().architecture)
        cache = ShardCache(store, snapshot.manifest.dataset, home() / "cache" / "shards")
        steps = prepared_steps(config, method, model, pools, cache)
        log.info("steps %d to %d on %s", start, config.train.steps, device)
        incoming = batches(steps, start, config.train.steps, config.compute.workers)
        run.steps(start, incoming, preview_images(snapshot, cache))
    method.finish(model)
    save_bundle(bundle, config, model, vlm.student().architecture)
    return bundle


def prepared_steps(config: Config, method: Method, model: nn.Module, pools: Pools, cache: ShardCache) -> Steps:
    """The batches by step number, after what the method makes of each captioned image is made."""
    maps = method.image_maps(model)
    return Steps(
        cache,
        pools.labelled,
        pools.unlabelled,
        config.train,
        method.partner,
        label_maps(config, pools.unlabelled),
        captioned=pools.captioned,
        image_maps=made_maps(maps, pools.captioned, cache, home() / "cache" / "maps") if maps else None,
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
        fetch(self.store, self.key, self.folder)
        found = newest_whole(self.folder)
        return load_checkpoint(found, self.model, self.optimizer) if found else 0

    def steps(self, start: int, incoming: Iterable[Batches], previews: dict[str, Tensor]) -> None:
        """Takes the steps from `start` on, telling the observer on the way."""
        c = self.config.train
        since, counted = time.perf_counter(), start
        for step, batch in enumerate(incoming, start):
            with self._room(step):
                losses = self._step(batch, step)
            done = step + 1
            if done % c.log_every == 0 or done == c.steps:
                values = {name: float(value) for name, value in losses.items()}
                if not np.isfinite(values["total"]):
                    raise TrainingError(
                        "TRAIN003",
                        f"the loss of step {step} is {values['total']}.",
                        "Lower train.learning_rate.",
                    )
                seconds = (time.perf_counter() - since) / (done - counted)
                since, counted = time.perf_counter(), done
                values |= {"learning_rate": learning_rate(c, step), "seconds_per_step": seconds}
                self.observer.metrics(done, {f"train/{name}": value for name, value in values.items()})
                log.info("step %d of %d: loss %.4f, %.2f s a step", done, c.steps, values["total"], seconds)
            if done % c.preview_every == 0 or done == c.steps:
                with self._room(done):
                    drawn = self.overlays(previews)
                self.observer.previews(done, drawn)
            if done % c.checkpoint_every == 0 and done < c.steps:
                path = save_checkpoint(self.folder, done, self.model, self.optimizer)
                upload(self.store, self.key, path)
                self.observer.checkpoint(done, path)  # who may end the training here

    def _step(self, batch: Batches, step: int) -> dict[str, Tensor]:
        incoming, precision = batch.to(self.device), self.config.compute.precision
        return take_step(self.method, self.model, self.optimizer, incoming, self.config.train, step, precision)

    @contextmanager
    def _room(self, done: int) -> Iterator[None]:
        """Where memory runs out inside: keeps the `done` finished steps and advises.

        Raises:
            TrainingError: TRAIN006, memory ran out.
        """
        try:
            yield
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            kept = "no step was done"
            if done:
                path = save_checkpoint(self.folder, done, self.model, self.optimizer)
                upload(self.store, self.key, path)
                kept = f"{done} steps are kept in {path.name}"
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
    decoded = {row.key: decode_image(read_sample(cache, row)[0]) for row in rows}
    return {key: torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for key, p in decoded.items()}


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


def apply_compute(model: nn.Module, config: ComputeConfig) -> None:
    """Sets what makes the model quicker or smaller without changing what it computes."""
    decode_in_chunks(model, config.class_chunk)
    for module in model.modules():
        if config.compile and isinstance(module, Block | Up | Spatial):
            module.compile(dynamic=False)


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not have the memory it asked for, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def memory_advice(config: Config) -> str:
    """What to set so that a training step needs less memory, what changes nothing else first."""
    chunk, t = config.compute.class_chunk, config.train
    same, other = [], []
    if config.method.name in ("semivl", "supervised") and (chunk is None or chunk > 1):
        same.append(f"compute.class_chunk={max(1, (chunk or len(config.classes)) // 2)}")
    if config.compute.precision == "fp32":
        other.append("compute.precision=bf16")
    if t.batch > 1:
        other.append(f"train.batch={t.batch // 2} with twice the train.steps")
    if t.crop >= 64:
        other.append(f"train.crop={t.crop * 3 // 4 // 16 * 16}")
    goes_on = [f"Set {', '.join(same)} and run again: it goes on from the kept steps."] if same else []
    anew = [f"Or start another training with {', or '.join(other)}."] if other else []
    return " ".join([*goes_on, *anew, "`semivl show` says what each is expected to need."])


def chosen_device(config: ComputeConfig) -> torch.device:
    """The device that `compute.device` means here.

    Raises:
        TrainingError: TRAIN005, cuda was asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("TRAIN005", "compute.device is cuda, but torch sees no GPU.", "Use auto or cpu.")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)
