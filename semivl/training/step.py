"""One update of the weights, the optimiser and its schedule (SemiVL; spec 1.2)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from semivl.config import TrainConfig
from semivl.data.stream import Batches
from semivl.methods import Method, after_step


def take_step(
    method: Method,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batches,
    config: TrainConfig,
    step: int,
    precision: str = "fp32",
) -> dict[str, Tensor]:
    """One update; every random draw in it follows from the seed and the step. Returns the losses.

    With `bf16` the networks run in it where torch holds that safe; weights, losses and cosines stay float32.
    """
    torch.manual_seed(config.seed * 1_000_003 + step)
    rate = learning_rate(config, step, method.restarts)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]
    device = next(model.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        losses = method.training_step(model, batch, step / config.steps)
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    if config.clip:
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    after_step(model, step)
    return {name: value.detach() for name, value in losses.items()}


def learning_rate(config: TrainConfig, step: int, restarts: Sequence[float] = ()) -> float:
    """The rate of a step: a linear warm-up, then the schedule's decay, in each phase anew.

    `poly` is a polynomial decay of power 0.9, set after each update: steps 0 and 1 both run at the initial rate (spec
    1.2). `cosine` is half a wave from the warm-up's end to 0.

    Args:
        restarts: shares of the training after which the schedule begins anew, as `Method.restarts` has them.
    """
    borders = [0, *(first_step(config, share) for share in restarts), config.steps]
    start, stop = next((start, stop) for start, stop in pairwise(borders) if step < stop)
    step, steps = step - start, stop - start
    if step < config.warmup:
        return config.learning_rate * (step + 1) / (config.warmup + 1)
    if config.schedule == "cosine":
        passed = (step - config.warmup) / (steps - config.warmup)
        return config.learning_rate * (1 + math.cos(math.pi * passed)) / 2
    return config.learning_rate * (1 - max(0, step - 1) / steps) ** 0.9


def first_step(config: TrainConfig, share: float) -> int:
    """The first step whose progress is not below that share of the training."""
    return math.ceil(share * config.steps - 1e-9)


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the pretrained encoder, its convolutional stem and the rest (spec 1.2).

    Few groups, so that torch updates many tensors in one call (spec 7.8). All that trains decays, or with
    `decay: matrices` not what has one dimension.
    """
    rates = {
        "encoder.stem.": config.conv_multiplier,
        "encoder.": config.backbone_multiplier,
        "learner.labels.encoder.": config.backbone_multiplier,
        "learner.discriminator.": config.discriminator_multiplier,
        "": config.decoder_multiplier,
    }
    grouped: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            prefix = next(prefix for prefix in rates if name.startswith(prefix))
            decays = config.decay == "all" or parameter.dim() > 1
            grouped.setdefault((prefix, decays), []).append(parameter)
    groups = [
        {"params": grouped[prefix, decays], "multiplier": rates[prefix]} | ({} if decays else {"weight_decay": 0.0})
        for prefix in rates
        for decays in (True, False)
        if (prefix, decays) in grouped
    ]
    fused = next(model.parameters()).device.type == "cuda"
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
