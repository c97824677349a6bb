"""Alignment of an image encoder with a text encoder on captioned images: `semivl pretrain --image-encoder`.

    semivl pretrain FOLDER --image-encoder timm:vit_small_patch14_dinov2 --text-encoder SENTENCES --output OUT

Both encoders stay as they are; what learns is a head on the patches and a linear layer on the sentences, by the
captions of whole images alone (locked-image tuning, Zhai et al. 2022, turned to patches). An image is the weighted
mean of a few of its patches' embeddings, so that a patch by itself comes to lie near what is said of it. The encoders
run once over everything; a step then takes a second on one core.

The patches are what the encoder's dense path gives after its last norm. The learned head ends inside the encoder
(`Architecture.head`), and the result is a folder that `vlm.model: aligned:OUT` names.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import CONF, ClassDefinition, Classes, Record, VlmConfig, check, expanded
from semivl.errors import ConfigError, TrainingError
from semivl.language.text import embed
from semivl.nets.aligned import LOCAL, load_text_encoder, save_aligned
from semivl.nets.encoder import DenseEncoder
from semivl.nets.vlm import load_vlm
from semivl.settings import ROOT, home
from semivl.training.pretrain import Pair, Progress, read_pairs

_CHUNK = 32
_STATISTICS = 20_000
"""tokens from which mean and deviation are taken"""
NO_CLASSES = Classes(classes=(ClassDefinition(name="a"), ClassDefinition(name="b")))  # pyright: ignore[reportCallIssue]
Told = Callable[[str], None]


class AlignSettings(Record):
    """How long, how fast, and what the head looks like."""

    steps: int = Field(300, ge=1)
    batch: int = Field(192, ge=2, description="images a step, a caption of each: each is a negative for all others")
    patches: int = Field(49, ge=1, description="patches of an image that a step sees")
    side: int = Field(224, ge=16, description="side in pixels that images are resized to")
    hidden: int = Field(1024, ge=1, description="width of the head's MLP")
    dropout: float = Field(0.1, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup: float = Field(0.1, gt=0, lt=1, description="share of the steps in which the rate rises")
    scale: float = Field(20.0, gt=0, description="factor on cosines at the start; it is learned")
    similar: float = Field(
        0.55, description="captions with a larger cosine are no negatives; CLIP's texts lie closer and need about 0.9"
    )
    seed: int = 0


class Prepared(NamedTuple):
    """What the frozen encoders say of everything."""

    patches: np.ndarray
    """(I, L, width) float16 on disk, the normed tokens of each image"""
    captions: Tensor
    """(C, T) float32, L2-normalised"""
    of_image: list[list[int]]
    """the captions of each image"""


def align(
    folder: Path,
    image: VlmConfig,
    text: str | VlmConfig,
    output: Path,
    settings: AlignSettings,
    progress: Progress,
    tell: Told = print,
) -> Path:
    """Aligns the two encoders on the folder's captions; gives the folder of the result.

    Args:
        folder: images/ and captions.jsonl, any number of captions an image.
        image: the image encoder, as for an experiment; its choice of skip blocks does not matter here.
        text: a sentence encoder's folder, or a model of open_clip whose text tower is taken.
        tell: is given a line on each longer part of the preparation.

    Raises:
        ConfigError: an encoder that cannot be loaded, CONF019 an image encoder that is no transformer.
        TrainingError: TRAIN060 captions that cannot be used, TRAIN061 fewer images than a batch,
            TRAIN062 an image that cannot be decoded, TRAIN063 the loss is no number.
    """
    pairs = read_pairs(folder)
    images = list(dict.fromkeys(pair.image for pair in pairs))
    if len(images) < settings.batch:
        what = f"{folder} has {len(images)} captioned images, fewer than a batch of {settings.batch}."
        raise TrainingError("TRAIN061", what, "Give more images or set a smaller batch.")
    encoder = load_vlm(image.model_copy(update={"skip_blocks": ()}), NO_CLASSES, settings.side).student().eval()
    prepared = _prepared(encoder, text, pairs, images, settings.side, tell)
    torch.manual_seed(settings.seed)
    head = Head(encoder, prepared.patches, prepared.captions.shape[1], settings)
    learn(head, prepared, settings, progress)
    return save_aligned(output, folded(encoder, head), text, head.text.weight)


def text_source(name: str) -> str | VlmConfig:
    """What a name stands for: a folder with a text encoder, else a model as `vlm.model` names it.

    Raises:
        ConfigError: CONF020 it is neither.
    """
    if (ROOT / name).is_dir():
        return name
    if name.startswith(LOCAL):
        return name.removeprefix(LOCAL)
    if (CONF / "vlm" / f"{name}.yaml").is_file():
        config = check(VlmConfig, expanded({"guidance": {"vlm": name}})["guidance"]["vlm"], f"vlm {name}")
        return config.model.removeprefix(LOCAL) if config.model.startswith(LOCAL) else config
    what = f"{name} is neither a folder nor a file in conf/vlm."
    raise ConfigError("CONF020", what, "Give a sentence encoder's folder, or a model with text.")


class Head(nn.Module):
    """What learns: patches (B, P, width) and sentences (B, T) into the shared space of T dimensions."""

    shift: Tensor
    deviation: Tensor

    def __init__(self, encoder: DenseEncoder, patches: np.ndarray, shared: int, settings: AlignSettings) -> None:
        super().__init__()
        width = encoder.architecture.width
        rng = np.random.default_rng(settings.seed)
        count = min(_STATISTICS, patches.shape[0] * patches.shape[1])
        chosen = rng.integers(patches.shape[:2], size=(count, 2))
        tokens = torch.from_numpy(patches[chosen[:, 0], chosen[:, 1]].astype(np.float32))
        self.register_buffer("shift", tokens.mean(0))
        self.register_buffer("deviation", tokens.std(0).clamp(min=1e-4))
        self.linear = nn.Linear(width, shared)
        last = nn.Linear(settings.hidden, shared)
        self.mlp = nn.Sequential(nn.Linear(width, settings.hidden), nn.GELU(), nn.Dropout(settings.dropout), last)
        self.attention = nn.Linear(width, 1)
        self.text = nn.Linear(shared, shared, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(settings.scale)))
        with torch.no_grad():
            last.weight.zero_()
            last.bias.zero_()
            self.text.weight.copy_(torch.eye(shared))
            if encoder.architecture.embedding == shared and not encoder.architecture.head:
                self._start_from(encoder.projection)

    def _start_from(self, projection: nn.Module) -> None:
        """Makes the first step's embedding the encoder's own, where it had one in a space of this width: CLIP's."""
        assert isinstance(projection, nn.Linear)
        self.linear.weight.copy_(projection.weight * self.deviation)
        self.linear.bias.copy_(projection.weight @ self.shift + (0 if projection.bias is None else projection.bias))

    def forward(self, patches: Tensor) -> Tensor:
        """(B, D) embeddings of images by (B, P, width) of their patches."""
        standard = (patches - self.shift) / self.deviation
        return F.normalize((self.attention(standard).softmax(1) * self.each(patches)).sum(1), dim=-1)

    def each(self, patches: Tensor) -> Tensor:
        """(..., D) embedding of every patch (..., width)."""
        standard = (patches - self.shift) / self.deviation
        return F.normalize(self.linear(standard) + self.mlp(standard), dim=-1)

    def sentences(self, captions: Tensor) -> Tensor:
        """(B, D) embeddings of (B, T) normalised sentences."""
        return F.normalize(self.text(captions), dim=-1)


def learn(head: Head, prepared: Prepared, settings: AlignSettings, progress: Progress) -> None:
    """Trains the head: symmetric InfoNCE of images against captions, near captions left out of the negatives."""
    optimizer = torch.optim.AdamW(
        head.parameters(), settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps + 1, pct_start=settings.warmup, cycle_momentum=False
    )
    head.train()
    for step, (patches, captions) in enumerate(_batches(prepared, settings), 1):
        logits = head.log_scale.exp() * head(patches) @ head.sentences(captions).T
        same = captions @ captions.T > settings.similar
        same.fill_diagonal_(False)
        logits = logits.masked_fill(same, -torch.inf)
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        if not torch.isfinite(loss):
            raise TrainingError("TRAIN063", f"the loss of step {step} is {loss}.", "Lower the learning rate.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            head.log_scale.clamp_(0, math.log(100))
        matched = (logits.argmax(1) == target).float().mean().item()
        progress(step, {"loss": loss.item(), "matched": matched, "scale": head.log_scale.exp().item()})
    head.eval()


@torch.no_grad()
def folded(encoder: DenseEncoder, head: Head) -> DenseEncoder:
    """The encoder with the head inside it, the standardisation of the tokens taken into the head's weights."""
    first, last = head.mlp[0], head.mlp[-1]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    projection, hidden = head.linear.weight / head.deviation, first.weight / head.deviation
    architecture = encoder.architecture.model_copy(
        update={"embedding": last.out_features, "head": first.out_features, "projection_bias": False}
    )
    own = {k: v for k, v in encoder.state_dict().items() if not k.startswith(("projection.", "head.", "stem."))}
    made = DenseEncoder(architecture.model_copy(update={"conv_stem": False}))
    made.load_state_dict(
        own
        | {
            "projection.weight": projection,
            "head.0.weight": hidden,
            "head.0.bias": first.bias - hidden @ head.shift,
            "head.2.weight": last.weight,
            "head.2.bias": last.bias + head.linear.bias - projection @ head.shift,
        }
    )
    return made.eval()


def _batches(prepared: Prepared, settings: AlignSettings) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` batches of (B, P, width) patches and a caption (B, T) of each image, every image once an epoch."""
    rng = np.random.default_rng(settings.seed)
    count, length = prepared.patches.shape[:2]
    order = np.empty(0, int)
    for _ in range(settings.steps):
        if len(order) < settings.batch:
            order = rng.permutation(count)  # what is left of an epoch is dropped: no image twice in a batch
        chosen, order = order[: settings.batch], order[settings.batch :]
        places = [rng.permutation(length)[: settings.patches] for _ in chosen]
        patches = np.stack([prepared.patches[i][p] for i, p in zip(chosen, places, strict=True)])
        captions = [int(rng.choice(prepared.of_image[i])) for i in chosen]
        yield torch.from_numpy(patches.astype(np.float32)), prepared.captions[captions]


def _prepared(
    encoder: DenseEncoder, text: str | VlmConfig, pairs: list[Pair], images: list[Path], side: int, tell: Told
) -> Prepared:
    model, tokenizer = load_text_encoder(text)
    tell(f"embedding {len(pairs)} captions")
    captions = embed(model, tokenizer, [pair.caption for pair in pairs])
    of_image: dict[Path, list[int]] = {image: [] for image in images}
    for i, pair in enumerate(pairs):
        of_image[pair.image].append(i)
    return Prepared(patch_features(encoder, images, side, tell), captions, list(of_image.values()))


def patch_features(encoder: DenseEncoder, images: list[Path], side: int, tell: Told) -> np.ndarray:
    """(I, L, width) float16: the dense path's normed patch tokens of the images at `side` pixels.

    They are kept on disk under what they were made of, and mapped from there.
    """
    path = home() / "cache" / "alignment" / f"{_digest(encoder, images, side)}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        a = encoder.architecture
        shape = (len(images), (-(-side // a.patch)) ** 2, a.width)
        file = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
        for i in range(0, len(images), _CHUNK):
            if i % (50 * _CHUNK) == 0:
                tell(f"encoding image {i} of {len(images)}")
            batch = np.stack([photo_at(image, side) for image in images[i : i + _CHUNK]])
            file[i : i + _CHUNK] = normed_tokens(encoder, torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255)
        file.flush()
        part.replace(path)
    return np.load(path, mmap_mode="r")


@torch.inference_mode()
def normed_tokens(encoder: DenseEncoder, images: Tensor) -> Tensor:
    """(B, L, width): what the projection of the dense path is applied to."""
    seen: list[Tensor] = []
    hook = encoder.ln_post.register_forward_hook(lambda _module, _inputs, output: seen.append(output))  # pyright: ignore
    try:
        encoder(images)
    finally:
        hook.remove()
    return seen[0][:, 1 + encoder.architecture.registers :]


def _digest(encoder: DenseEncoder, images: list[Path], side: int) -> str:
    digest = hashlib.sha256(f"{encoder.architecture.model_dump_json()} {side}".encode())
    for tensor in encoder.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    for image in images:
        found = image.stat()
        digest.update(f"{image} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def photo_at(path: Path, side: int) -> np.ndarray:
    """(side, side, 3) uint8."""
    try:
        return np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    except (OSError, UnidentifiedImageError) as error:
        raise TrainingError("TRAIN062", f"{path} cannot be decoded: {error}.", "Remove it and its captions.") from None
