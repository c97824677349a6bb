"""Distillation of a vision-language model into another image encoder: `semivl pretrain --teacher`.

    semivl pretrain FOLDER --image-encoder timm:vit_small_patch14_dinov2 --teacher clip-vit-b16 --output OUT

A strong image encoder that knows no text learns to say of every patch what the teacher says there; the teacher's text
then serves both. No caption and no label is needed, only images like those that matter (dense features of CLIP taught
to another backbone: Zhou et al. 2022, MaskCLIP+, section 3.3; here the target is the embedding itself). As in
alignment, both encoders stay as they are and run once over everything; what learns is a head on the patches.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import VlmConfig
from semivl.errors import ConfigError, TrainingError
from semivl.methods import as_planes
from semivl.nets.aligned import PROJECTION_FILE, TEXT_FOLDER, save_aligned, weights
from semivl.nets.vlm import ALIGNED, SPOKEN, load_vlm, weights_digest
from semivl.settings import ROOT, home
from semivl.training.alignment import (
    NO_CLASSES,
    AlignSettings,
    Head,
    Told,
    folded,
    patch_features,
    photo_at,
)
from semivl.training.pretrain import Progress


def distill(
    folder: Path,
    image: VlmConfig,
    teacher: VlmConfig,
    output: Path,
    settings: AlignSettings,
    progress: Progress,
    tell: Told = print,
) -> Path:
    """Teaches the image encoder the teacher's dense embeddings of the folder's images; gives the result's folder.

    Args:
        folder: images/, JPEG or PNG.
        image: the image encoder, as for an experiment; its choice of skip blocks does not matter here.
        teacher: any model with text; its text encoder goes into the result.

    Raises:
        ConfigError: an encoder that cannot be loaded, CONF018 a teacher without text, CONF019 an image encoder that is
            no transformer.
        TrainingError: TRAIN061 fewer images than a batch, TRAIN062 an image that cannot be decoded,
            TRAIN063 the loss is no number.
    """
    found = (folder / "images").rglob("*") if (folder / "images").is_dir() else ()
    images = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    if len(images) < settings.batch:
        what = f"{folder / 'images'} has {len(images)} images, fewer than a batch of {settings.batch}."
        raise TrainingError("TRAIN061", what, "Give more images or set a smaller batch.")
    encoder = load_vlm(image.model_copy(update={"skip_blocks": ()}), NO_CLASSES, settings.side).student().eval()
    guide = load_vlm(teacher, NO_CLASSES, settings.side)
    shared = guide.required_text("distillation").names.shape[1]
    patches = patch_features(encoder, images, settings.side, tell)
    grid = -(-settings.side // encoder.architecture.patch)
    said = _said(guide.frozen_encoder(), weights_digest(teacher) or teacher.model, images, settings.side, grid, tell)
    torch.manual_seed(settings.seed)
    head = Head(encoder, patches, shared, settings)
    learn(head, patches, said, settings, progress)
    text, projection = text_of(teacher)
    return save_aligned(output, folded(encoder, head), text, torch.eye(shared) if projection is None else projection)


def learn(head: Head, patches: np.ndarray, said: np.ndarray, settings: AlignSettings, progress: Progress) -> None:
    """Trains the head: the cosine between each patch's embedding and the teacher's is to be 1."""
    learned = [p for n, p in head.named_parameters() if n.startswith(("linear.", "mlp."))]
    optimizer = torch.optim.AdamW(learned, settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps + 1, pct_start=settings.warmup, cycle_momentum=False
    )
    rng = np.random.default_rng(settings.seed)
    head.train()
    for step in range(1, settings.steps + 1):
        chosen = rng.choice(len(patches), settings.batch, replace=False)[:, None]
        places = rng.integers(patches.shape[1], size=(settings.batch, min(settings.patches, patches.shape[1])))
        seen, target = (torch.from_numpy(a[chosen, places].astype(np.float32)) for a in (patches, said))
        loss = 1 - F.cosine_similarity(head.each(seen), target, dim=-1).mean()
        if not torch.isfinite(loss):
            raise TrainingError("TRAIN063", f"the loss of step {step} is {loss}.", "Lower the learning rate.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step, {"loss": loss.item()})
    head.eval()


def text_of(teacher: VlmConfig) -> tuple[str | VlmConfig, Tensor | None]:
    """The teacher's text encoder as `save_aligned` takes it, and the projection behind it where there is one.

    Raises:
        ConfigError: CONF020, an aligned teacher whose projection is gone.
    """
    kind, _, path = teacher.model.partition(":")
    if teacher.model.startswith((ALIGNED, SPOKEN)):
        folder = ROOT / path
        if not (folder / TEXT_FOLDER).is_dir():
            raise ConfigError("CONF020", f"there is no {folder / TEXT_FOLDER}.", "Choose another teacher.")
        projection = weights(folder / PROJECTION_FILE)["projection"] if teacher.model.startswith(ALIGNED) else None
        return str(folder / TEXT_FOLDER), projection
    return (path if kind == "local-dir" else teacher), None


def _said(encoder: nn.Module, name: str, images: list[Path], side: int, grid: int, tell: Told) -> np.ndarray:
    """(I, grid * grid, D) float16: the teacher's dense embeddings at the patches' places, kept on disk.

    The images are fed squared to `side` pixels, as the student sees them.
    """
    listed = "\n".join(f"{image} {image.stat().st_size}" for image in images)
    key = hashlib.sha256(f"{name} {side} {grid} {listed}".encode()).hexdigest()[:32]
    path = home() / "cache" / "alignment" / f"teacher-{key}.npy"
    if path.is_file():
        return np.load(path, mmap_mode="r")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, file = path.with_suffix(".part"), None
    for i, image in enumerate(images):
        if i % 400 == 0:
            tell(f"asking the teacher about image {i} of {len(images)}")
        with torch.inference_mode():
            pixels = as_planes(photo_at(image, side))[None]
            dense = F.interpolate(encoder(pixels).dense, size=(grid, grid), mode="bilinear", align_corners=False)
            row = dense[0].flatten(1).T.numpy()
        if file is None:
            file = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=(len(images), *row.shape))
        file[i] = row
    assert file is not None
    file.flush()
    part.replace(path)
    return np.load(path, mmap_mode="r")
