"""One update of the weights, the optimiser and its schedule (SemiVL; spec 1.2)."""

import torch
from torch import Tensor, nn

from semivl.config import TrainConfig
from semivl.data.stream import Batches
from semivl.methods import Method


def take_step(
    method: Method,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batches,
    config: TrainConfig,
    step: int,
) -> dict[str, Tensor]:
    """One update; every random draw in it follows from the seed and the step. Returns the losses."""
    torch.manual_seed(config.seed * 1_000_003 + step)
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]
    losses = method.training_step(model, batch, step / config.steps)
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    optimizer.step()
    return {name: value.detach() for name, value in losses.items()}


def learning_rate(config: TrainConfig, step: int) -> float:
    """Polynomial decay of power 0.9, set after each update: steps 0 and 1 both run at the initial rate (spec 1.2)."""
    return config.learning_rate * (1 - max(0, step - 1) / config.steps) ** 0.9


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over two groups, the pretrained encoder and the rest; everything that trains decays (spec 1.2)."""
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    backbone = [p for n, p in trained if n.startswith("encoder.")]
    rest = [p for n, p in trained if not n.startswith("encoder.")]
    groups = [
        {"params": backbone, "multiplier": config.backbone_multiplier},
        {"params": rest, "multiplier": config.decoder_multiplier},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
