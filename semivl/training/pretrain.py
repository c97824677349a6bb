"""Contrastive pretraining of a CLIP on images with captions: `semivl pretrain`.

    semivl pretrain FOLDER --config conf/vlm/tiny-clip/open_clip_config.json --output OUT --steps 1500

FOLDER is in the `folder` layout; only images/ and captions.jsonl are read, never a mask. The result is a folder in
open_clip's own format, which `vlm.model: local-dir:OUT` names.

The loss is CLIP's symmetric InfoNCE (Radford et al. 2021, section 2.3), on the image's embedding and on that of the
last block's value path, which dense guidance reads; beside it the words of the caption are predicted from the value
path by a linear head that is dropped afterwards (Huang et al. 2024, SuperClass), which takes hold long before the
contrast does where captions are few. The first share of the steps is run at half the image's side, for speed. The
last share sees mosaics: several images laid out as tiles of one, each tile's patches against its own caption, so that
a patch learns to speak of what is near it and not of the whole image.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from safetensors.torch import load_file, save_file
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

    steps: int = Field(1400, ge=1)
    batch: int = Field(64, ge=2, description="image-caption pairs a step: each is a negative for all others")
    learning_rate: float = Field(1e-3, gt=0, description="of embeddings, biases and norms, with AdamW")
    matrix_rate: float = Field(3e-3, gt=0, description="of the transformers' matrices, with Muon")
    weight_decay: float = Field(0.05, ge=0, description="of the matrices; all else has none")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the rates rise")
    crop: float = Field(0.7, gt=0, le=1, description="smallest share of the image's area that a crop keeps")
    coarse: float = Field(0.92, ge=0, lt=1, description="share of the steps, the first, at half the image's side")
    mosaic: float = Field(
        0.0, ge=0, le=1, description="share of the steps, the last, on mosaics of 2, 3 or 4 tiles a side"
    )
    words: float = Field(1.0, ge=0, description="weight of predicting the caption's words")
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


def pretrain(
    folder: Path,
    config: Path,
    output: Path,
    settings: PretrainSettings,
    progress: Progress,
    start: Path | None = None,
) -> Path:
    """Trains the model that `config` describes; gives the folder with its weights, as float16.

    Args:
        folder: images/ and captions.jsonl.
        config: an open_clip_config.json.
        output: folder for the result, made if need be.
        start: folder of an earlier result to go on from; from nothing where left out.

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
    if start:
        model.load_state_dict({k: v.float() for k, v in load_file(start / WEIGHTS_FILE).items()})
    text: dict[str, Any] = described["model_cfg"]["text_cfg"]
    tokenizer = open_clip.SimpleTokenizer(context_length=text.get("context_length", 77))
    words = Words(tokenizer([pair.caption for pair in pairs]), described["model_cfg"]["embed_dim"])
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    preprocess |= described.get("preprocess_cfg", {})
    optimizers = _optimizers(model, words, settings)
    side: int = described["model_cfg"]["vision_cfg"]["image_size"]
    patch: int = described["model_cfg"]["vision_cfg"]["patch_size"]
    for step, (tiles, images, captions) in enumerate(_batches(pairs, side, patch, settings), 1):
        normalised = (images - _channel(preprocess["mean"])) / _channel(preprocess["std"])
        share = _rate_share(settings, step)
        loss, right = _step(model, words, normalised, tiles, tokenizer(captions), settings)
        if not math.isfinite(loss):
            raise TrainingError("TRAIN063", f"the loss of step {step} is {loss}.", "Lower the learning rates.")
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial"] * share
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        progress(step, {"loss": loss, "matched": right, "logit_scale": model.logit_scale.exp().item()})
    return save(model, described, output)


def save(model: nn.Module, described: dict, output: Path) -> Path:
    """Writes config and float16 weights in open_clip's format; gives the folder."""
    output.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    save_file(state, output / f".{WEIGHTS_FILE}.part")
    (output / f".{WEIGHTS_FILE}.part").replace(output / WEIGHTS_FILE)
    (output / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n")
    return output


class Words(nn.Module):
    """Predicts which of the captions' tokens an image's caption holds; rare ones weigh more."""

    weight: Tensor

    def __init__(self, tokens: Tensor, embedding: int) -> None:
        super().__init__()
        present = torch.zeros(len(tokens), int(tokens.max()) + 1).scatter_(1, tokens, 1.0).mean(0)
        used = (present > 0.002) & (present < 0.6)
        self.register_buffer("weight", torch.where(used, -present.clamp(min=1e-6).log(), torch.zeros(())))
        self.head = nn.Linear(embedding, int(used.sum()))
        self.used = used.nonzero()[:, 0]

    def forward(self, embedded: Tensor, tokens: Tensor) -> Tensor:
        """Cross-entropy of (B, D) embeddings against the tokens (B, L), each caption's weights summing to 1."""
        held = torch.zeros(len(tokens), len(self.weight)).scatter_(1, tokens, 1.0) * self.weight
        target = held[:, self.used]
        target = target / target.sum(1, keepdim=True).clamp(min=1e-6)
        return -(target * self.head(embedded).log_softmax(1)).sum(1).mean()


def _step(
    model: open_clip.CLIP, words: Words, images: Tensor, tiles: int, tokens: Tensor, settings: PretrainSettings
) -> tuple[float, float]:
    """Accumulates the gradient of one batch; gives CLIP's loss and the share of images matched to their caption."""
    text = F.normalize(model.encode_text(tokens), dim=-1)
    whole, value = embeddings(model.visual, mosaics(images, tiles), tiles)
    scale = model.logit_scale.exp()
    logits = scale * F.normalize(whole, dim=-1) @ text.T
    loss = info_nce(logits)
    total = loss + info_nce(scale * F.normalize(value, dim=-1) @ text.T)
    if settings.words:
        total = total + settings.words * words(value, tokens)
    total.backward()
    right = (logits.argmax(1) == torch.arange(len(logits))).float().mean()
    return loss.item(), right.item()


def mosaics(images: Tensor, tiles: int) -> Tensor:
    """Images (B, 3, S, S) as (B / tiles^2, 3, tiles * S, tiles * S), row by row."""
    b, _, side, _ = images.shape
    grid = images.view(b // tiles**2, tiles, tiles, 3, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, tiles * side, tiles * side)


def embeddings(visual: Any, images: Tensor, tiles: int = 1) -> tuple[Tensor, Tensor]:
    """Of the tiles of normalised images (B, 3, H, W): the embedding, and the same by the value path.

    Both are (B * tiles^2, D), the mean over a tile's own patches; with one tile, open_clip's mean-pooled embedding.
    """
    x = visual.conv1(images)
    grid = x.shape[-2:]
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], dim=1)
    x = visual.ln_pre(x + resized_positions(visual.positional_embedding, visual.grid_size, grid))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    c = x.shape[-1]
    v = F.linear(last.ln_1(x), last.attn.in_proj_weight[2 * c :], last.attn.in_proj_bias[2 * c :])
    v = x + last.attn.out_proj(v)
    v = v + last.mlp(last.ln_2(v))

    def of_tiles(tokens: Tensor) -> Tensor:
        patches = visual.ln_post(tokens[:, 1:]).transpose(1, 2).unflatten(2, grid)
        return F.adaptive_avg_pool2d(patches, tiles).flatten(2).transpose(1, 2).flatten(0, 1) @ visual.proj

    return of_tiles(last(x)), of_tiles(v)


def info_nce(logits: Tensor) -> Tensor:
    """CLIP's loss of (B, B) logits: cross-entropy of images against captions and the reverse, averaged."""
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _optimizers(model: nn.Module, words: Words, settings: PretrainSettings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformers, AdamW for all else."""
    named = [(n, p) for n, p in model.named_parameters()]
    matrices = [p for n, p in named if "resblocks" in n and p.ndim == 2]
    rest = [p for n, p in named if not ("resblocks" in n and p.ndim == 2)]
    muon = torch.optim.Muon(
        matrices, settings.matrix_rate, settings.weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    groups = [{"params": rest}, {"params": list(words.parameters()), "lr": 3 * settings.learning_rate}]
    adamw = torch.optim.AdamW(groups, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    optimizers: list[torch.optim.Optimizer] = [muon, adamw]
    for group in (g for optimizer in optimizers for g in optimizer.param_groups):
        group["initial"] = group["lr"]
    return optimizers


def _rate_share(settings: PretrainSettings, step: int) -> float:
    """Share of the full rates at a step: a linear rise, then half a cosine down to zero."""
    done, rise = step / settings.steps, settings.warmup
    return done / rise if done < rise else 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))


def _batches(
    pairs: list[Pair], size: int, patch: int, settings: PretrainSettings
) -> Iterator[tuple[int, Tensor, list[str]]]:
    """`steps` batches of (tiles a side, (B, 3, side, side) float32 in [0, 1], captions), every pair once an epoch."""
    rng = np.random.default_rng(settings.seed)
    order = np.empty(0, int)
    for step in range(1, settings.steps + 1):
        tiles, side, count = 1, size, settings.batch
        if step <= settings.coarse * settings.steps:
            side = size // 2
        elif step > (1 - settings.mosaic) * settings.steps:
            tiles = int(rng.integers(2, 5))
            side = size // patch // tiles * patch
            count = tiles**2 * max(1, settings.batch // 4)
        while len(order) < count:
            order = np.concatenate([order, rng.permutation(len(pairs))])
        chosen, order = [pairs[i] for i in order[:count]], order[count:]
        images = np.stack([_view(rng, pair.image, side, settings.crop) for pair in chosen])
        yield tiles, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, [pair.caption for pair in chosen]


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
