"""SemiVL's training step written down plainly, without any of the savings of spec 7: the oracle of the tests, and what
`benchmarks.cost` measures against.

It computes with the weights of the very modules that it is compared with: attention weights are materialised and
averaged over heads, as the published code does; the last block runs in full beside its value path; the decoder joins a
copy of each skip feature to every class and keeps all activations; labelled features are perturbed and decoded for
nothing; the partner is always predicted; losses and pseudo-labels are made of logits at full resolution.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semivl.config import IGNORE, TrainConfig
from semivl.data.stream import Batches, Unlabelled
from semivl.methods import Losses, as_float
from semivl.methods.parts.guidance import LanguageGuidance
from semivl.methods.parts.views import cutmix_boxes, mixed, strong_view
from semivl.methods.semivl import SemiVL
from semivl.nets.decoder import LanguageDecoder, Up
from semivl.nets.encoder import Block, DenseEncoder, Features
from semivl.nets.segmenter import Segmenter, joined, part, perturbed
from semivl.nets.vlm import concept_cosines


def features(encoder: DenseEncoder, images: Tensor) -> Features:
    """What `DenseEncoder.forward` gives."""
    tokens, grid = encoder.tokens(images)
    skips = [encoder.stem(images)] if encoder.stem else []
    value, last = tokens, encoder.architecture.layers - 1
    for i, block in enumerate(encoder.layers()):
        if i in encoder.architecture.skip_blocks or i == last:
            value = _value(block, tokens)
        if i in encoder.architecture.skip_blocks:
            skips.append(encoder._map(value, grid))
        tokens = _block(block, tokens)
    dense = encoder.projection(encoder.ln_post(value))
    F.normalize(encoder.projection(encoder.ln_post(tokens)), dim=-1)  # the class token's embedding, which nobody reads
    return Features(F.normalize(encoder._map(dense, grid), dim=1), tuple(skips))


def _value(block: Block, x: Tensor) -> Tensor:
    """The value path as published: its own projections, those of query and key for nothing."""
    _, _, value = (block.out_proj(part) for part in block.in_proj(block.ln_1(x)).chunk(3, dim=-1))
    x = x + value
    hidden = block.fc(block.ln_2(x))
    return x + block.proj(hidden * torch.sigmoid(1.702 * hidden) if block.quick else F.gelu(hidden))


def _block(block: Block, x: Tensor) -> Tensor:
    b, n, c = x.shape
    q, k, v = block.in_proj(block.ln_1(x)).view(b, n, 3, block.heads, -1).permute(2, 0, 3, 1, 4)
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
    weights.mean(dim=1)
    x = x + block.out_proj((weights @ v).transpose(1, 2).reshape(b, n, c))
    hidden = block.fc(block.ln_2(x))
    return x + block.proj(hidden * torch.sigmoid(1.702 * hidden) if block.quick else F.gelu(hidden))


def cells(decoder: LanguageDecoder, seen: Features, text: Tensor) -> Tensor:
    """What `LanguageDecoder.forward` gives."""
    cosine = decoder.scale * torch.einsum("bdhw,nd->bnhw", F.normalize(seen.dense, dim=1), text)
    b, n, h, w = cosine.shape
    x = decoder.spatial(decoder.similarity(cosine.reshape(b * n, 1, h, w))).view(b, n, -1, h, w)
    for layer in decoder.semantic:
        x = layer(x, decoder.text(text))
    shallow, deep = seen.skips
    x = _up(decoder.up_shallow, _up(decoder.up_deep, x.flatten(0, 1), deep), shallow)
    return decoder.head(x).view(b, n, 4 * h, 4 * w)


def _up(up: Up, x: Tensor, skip: Tensor) -> Tensor:
    x = up.up(x)
    skip = F.interpolate(up.skip(skip), size=x.shape[-2:], mode="bilinear", align_corners=True)
    return up.mix(torch.cat([x, skip.repeat_interleave(len(x) // len(skip), dim=0)], dim=1))


def training_step(method: SemiVL, model: Segmenter, batches: Batches, progress: float) -> Losses:
    """What `SemiVL.training_step` gives, with the same random draws."""
    labelled, unlabelled, partner = batches.labelled, batches.unlabelled, batches.partner
    assert labelled is not None and unlabelled is not None and partner is not None
    weak, weak_partner = as_float(unlabelled.images), as_float(partner.images)
    count, size = len(weak), weak.shape[-2:]
    boxes = [cutmix_boxes(count, size[0]).to(weak.device) for _ in range(2)]

    def logits(seen: Features) -> Tensor:
        return F.interpolate(cells(model.decoder, seen, model.text), size=size, mode="bilinear", align_corners=False)

    with torch.no_grad():
        partner_logits = logits(features(model.encoder, weak_partner))
        guidance, guidance_partner = _hints(model, weak, unlabelled), _hints(model, weak_partner, partner)
    clean = features(model.encoder, torch.cat([as_float(labelled.images), weak]))
    shaken = perturbed(part(clean, count, None), method.settings.dropout)
    with torch.random.fork_rng():
        for_nothing = perturbed(part(clean, 0, count), method.settings.dropout)
    parts = logits(joined(clean, joined(for_nothing, shaken))).split(count)
    of_labelled, of_weak, _, of_shaken = parts
    views = [mixed(strong_view(weak), strong_view(weak_partner), b) for b in boxes]
    of_strong = logits(features(model.encoder, torch.cat(views))).split(count)

    confidence, label = of_weak.detach().softmax(1).max(1)
    confidence_partner, label_partner = partner_logits.softmax(1).max(1)
    supervised = F.cross_entropy(of_labelled, labelled.masks, ignore_index=IGNORE)
    consistency, guide = [], []
    for prediction, box in ((of_strong[0], boxes[0]), (of_strong[1], boxes[1]), (of_shaken, None)):
        target, sure, hint, ignored = label, confidence, guidance, unlabelled.ignored
        if box is not None:
            target, sure, hint = (
                torch.where(box, b, a)
                for a, b in ((label, label_partner), (confidence, confidence_partner), (guidance, guidance_partner))
            )
            ignored = torch.where(box, partner.ignored, ignored)
        each = F.cross_entropy(prediction, target, reduction="none")
        counted = (sure >= method.settings.confidence) & ~ignored
        consistency.append((each * counted).sum() / (~ignored).sum())
        guide.append(F.cross_entropy(prediction, hint, ignore_index=IGNORE, reduction="sum") / hint.numel())
    consistent = 0.25 * consistency[0] + 0.25 * consistency[1] + 0.5 * consistency[2]
    guided = 0.25 * guide[0] + 0.25 * guide[1] + 0.5 * guide[2]
    weight = method.settings.guidance.weight * (1 - progress)
    return {
        "total": (supervised + consistent) / 2 + weight * guided,
        "supervised": supervised,
        "consistency": consistent,
        "guidance": guided,
    }


def _hints(model: nn.Module, images: Tensor, unlabelled: Unlabelled) -> Tensor:
    teacher = model.get_submodule("teacher")
    assert isinstance(teacher, LanguageGuidance) and isinstance(teacher.encoder, DenseEncoder)
    seen = features(teacher.encoder, images)
    cosines = concept_cosines(seen, teacher.phrases, teacher.phrase_class, teacher.classes)
    cosines = F.interpolate(cosines, size=images.shape[-2:], mode="bilinear", align_corners=False)
    confidence, label = (teacher.settings.scale * cosines).softmax(1).max(1)
    return label.masked_fill((confidence < teacher.settings.threshold) | unlabelled.ignored, IGNORE)


def optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with a group for every tensor, one tensor updated at a time."""
    rates = {True: config.backbone_multiplier, False: config.decoder_multiplier}
    groups = [
        {"params": [p], "multiplier": rates[n.startswith("encoder.")]}
        for n, p in model.named_parameters()
        if p.requires_grad
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=False)
