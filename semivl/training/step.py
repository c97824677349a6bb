"""One update of the weights, the optimiser and its schedule (SemiVL; spec 1.2)."""

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
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]
    with torch.autocast(batch.labelled.images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        losses = method.training_step(model, batch, step / config.steps)
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    optimizer.step()
    after_step(model, step)
    return {name: value.detach() for name, value in losses.items()}


def learning_rate(config: TrainConfig, step: int) -> float:
    """Polynomial decay of power 0.9, set after each update: steps 0 and 1 both run at the initial rate (spec 1.2)."""
    return config.learning_rate * (1 - max(0, step - 1) / config.steps) ** 0.9


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the pretrained encoder, its convolutional stem and the rest; all that trains decays (spec 1.2).

    Few groups, so that torch updates many tensors in one call (spec 7.8).
    """
    rates = {
        "encoder.stem.": config.conv_multiplier,
        "encoder.": config.backbone_multiplier,
        "": config.decoder_multiplier,
    }
    grouped: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in rates}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            grouped[next(prefix for prefix in rates if name.startswith(prefix))].append(parameter)
    groups = [{"params": grouped[prefix], "multiplier": rates[prefix]} for prefix in rates if grouped[prefix]]
    fused = next(model.parameters()).device.type == "cuda"
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
