"""Contrastive pretraining of a CLIP on images with captions: `semivl pretrain`.

    semivl pretrain FOLDER --config conf/vlm/tiny-clip/open_clip_config.json --output OUT --steps 1500

FOLDER is in the `folder` layout; only images/ and captions.jsonl are read, never a mask. The result is a folder in
open_clip's own format, which `vlm.model: local-dir:OUT` names. The loss is CLIP's symmetric InfoNCE (Radford et
al. 2021, section 2.3), with a share of the patches dropped for speed (FLIP, Li et al. 2023).
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.transformer import PatchDropout
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import Record
from semivl.errors import TrainingError
from semivl.nets.encoder import resized_positions
from semivl.nets.open_clip_loading import CONFIG_FILE, WEIGHTS_FILE, read_config

Progress = Callable[[int, dict[str, float]], None]
"""called after each step with the step, from 1 on, and the values measured in it"""


class PretrainSettings(Record):
    """How long and how fast."""

    steps: int = Field(1500, ge=1)
    batch: int = Field(96, ge=2, description="image-caption pairs a step: each is a negative for all others")
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0, description="of matrices; biases, norms and positions have none")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the rate rises")
    patch_dropout: float = Field(0.5, ge=0, lt=1, description="share of the patches left out in training")
    crop: float = Field(0.6, gt=0, le=1, description="smallest share of the image's area that a crop keeps")
    coarse: float = Field(0.6, ge=0, lt=1, description="share of the steps, the first, at half the image's side")
    value_weight: float = Field(0.0, ge=0, description="weight of the same loss on the last block's value path")
    seed: int = 0


class Pair(Record):
    """One line of captions.jsonl, its image found."""

    image: Path
    caption: str


def read_pairs(folder: Path) -> list[Pair]:
    """The captioned images of a folder, in the order of captions.jsonl.

    Raises:
        TrainingError: TRAIN060, no captions.jsonl, a line that cannot be used, or an image that is not there.
    """
    path = folder / "captions.jsonl"
    if not path.is_file():
        raise TrainingError("TRAIN060", f"there is no {path}.", 'Write lines of {"image": NAME, "caption": TEXT}.')
    pairs = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            pair = Pair(image=folder / "images" / entry["image"], caption=entry["caption"])
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError("TRAIN060", f"{path}, line {number}: {error}.", "Mend the line.") from None
        if not pair.image.is_file():
            raise TrainingError("TRAIN060", f"{path}, line {number}: there is no {pair.image}.", "Mend the line.")
        pairs.append(pair)
    return pairs


def pretrain(folder: Path, config: Path, output: Path, settings: PretrainSettings, progress: Progress) -> Path:
    """Trains the model that `config` describes from nothing; gives the folder with its weights, as float16.

    Args:
        folder: images/ and captions.jsonl.
        config: an open_clip_config.json.
        output: folder for the result, made if need be.

    Raises:
        ConfigError: CONF011 or CONF012, the config is not there or cannot be used.
        TrainingError: TRAIN060 captions that cannot be used, TRAIN061 fewer pairs than a batch,
            TRAIN062 an image that cannot be decoded, TRAIN063 the loss is no number.
    """
    described = read_config(config.parent) if config.name == CONFIG_FILE else json.loads(config.read_text())
    pairs = read_pairs(folder)
    if len(pairs) < settings.batch:
        what = f"{folder} has {len(pairs)} captioned images, fewer than a batch of {settings.batch}."
        raise TrainingError("TRAIN061", what, "Give more images or set a smaller batch.")
    torch.manual_seed(settings.seed)
    model = open_clip.CLIP(**described["model_cfg"]).train()
    tokenizer = open_clip.SimpleTokenizer(context_length=described["model_cfg"]["text_cfg"].get("context_length", 77))
    model.visual.patch_dropout = nn.Identity()
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    preprocess |= described.get("preprocess_cfg", {})
    optimizer = _optimizer(model, settings)
    for step, (images, captions) in enumerate(_batches(pairs, model.visual.image_size[0], settings), 1):
        if step > settings.coarse * settings.steps:
            model.visual.patch_dropout = PatchDropout(settings.patch_dropout)
        normalised = (images - _channel(preprocess["mean"])) / _channel(preprocess["std"])
        rate = _set_rate(optimizer, settings, step)
        loss, right = _step(model, normalised, tokenizer(captions), settings)
        if not math.isfinite(loss):
            raise TrainingError("TRAIN063", f"the loss of step {step} is {loss}.", "Lower the learning rate.")
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        scale = model.logit_scale.exp().item()
        progress(step, {"loss": loss, "matched": right, "learning_rate": rate, "logit_scale": scale})
    return save(model, described, output)


def save(model: nn.Module, described: dict, output: Path) -> Path:
    """Writes config and float16 weights in open_clip's format; gives the folder."""
    output.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    save_file(state, output / f".{WEIGHTS_FILE}.part")
    (output / f".{WEIGHTS_FILE}.part").replace(output / WEIGHTS_FILE)
    (output / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n")
    return output


def _step(model: open_clip.CLIP, images: Tensor, tokens: Tensor, settings: PretrainSettings) -> tuple[float, float]:
    """Accumulates the gradient of one batch; gives the loss and the share of images matched to their caption."""
    text = F.normalize(model.encode_text(tokens), dim=-1)
    scale = model.logit_scale.exp()
    features, value = value_path(model.visual, images)
    if settings.value_weight:
        extra = settings.value_weight * info_nce(scale * F.normalize(value, dim=-1) @ text.T)
    else:
        extra = 0.0
    logits = scale * F.normalize(features, dim=-1) @ text.T
    loss = info_nce(logits)
    (loss + extra).backward()
    right = (logits.argmax(1) == torch.arange(len(logits))).float().mean()
    return loss.item(), right.item()


def value_path(visual, images: Tensor) -> tuple[Tensor, Tensor]:
    x = visual.conv1(images)
    h, w = x.shape[-2:]
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = visual.ln_pre(visual.patch_dropout(x + resized_positions(visual.positional_embedding, visual.grid_size, (h, w))))
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    last = visual.transformer.resblocks[-1]
    c = x.shape[-1]
    v = F.linear(last.ln_1(x), last.attn.in_proj_weight[2 * c :], last.attn.in_proj_bias[2 * c :])
    v = x + last.attn.out_proj(v)
    v = v + last.mlp(last.ln_2(v))
    full = visual._pool(last(x))[0] @ visual.proj
    return full, visual._pool(v)[0] @ visual.proj


def info_nce(logits: Tensor) -> Tensor:
    """CLIP's loss of (B, B) logits: cross-entropy of images against captions and the reverse, averaged."""
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _optimizer(model: nn.Module, settings: PretrainSettings) -> torch.optim.AdamW:
    plain = [p for n, p in model.named_parameters() if p.ndim < 2 or "positional" in n]
    matrices = [p for n, p in model.named_parameters() if p.ndim >= 2 and "positional" not in n]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), eps=1e-6)


def _set_rate(optimizer: torch.optim.Optimizer, settings: PretrainSettings, step: int) -> float:
    """A linear rise, then half a cosine down to zero."""
    done, rise = step / settings.steps, settings.warmup
    share = done / rise if done < rise else 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * share
    return settings.learning_rate * share


def _batches(pairs: list[Pair], size: int, settings: PretrainSettings) -> Iterator[tuple[Tensor, list[str]]]:
    """`steps` batches of ((B, 3, size, size) float32 in [0, 1], captions), every pair once an epoch."""
    rng = np.random.default_rng(settings.seed)
    order = np.empty(0, int)
    for step in range(1, settings.steps + 1):
        side = size // 2 if step <= settings.coarse * settings.steps else size
        if len(order) < settings.batch:
            order = np.concatenate([order, rng.permutation(len(pairs))])
        chosen, order = [pairs[i] for i in order[: settings.batch]], order[settings.batch :]
        images = np.stack([_view(rng, pair.image, side, settings.crop) for pair in chosen])
        yield torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, [pair.caption for pair in chosen]


def _view(rng: np.random.Generator, path: Path, size: int, smallest: float) -> np.ndarray:
    """(size, size, 3) uint8: a random crop of the image, flipped half of the time."""
    try:
        image = Image.open(path).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise TrainingError("TRAIN062", f"{path} cannot be decoded: {error}.", "Remove it and its caption.") from None
    side = math.sqrt(rng.uniform(smallest, 1))
    width, height = image.width * side, image.height * side
    left, top = rng.uniform(0, image.width - width + 1e-9), rng.uniform(0, image.height - height + 1e-9)
    box = (left, top, left + width, top + height)
    view = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))
    return view[:, ::-1] if rng.random() < 0.5 else view


def _channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
