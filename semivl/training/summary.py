"""What an experiment amounts to before it runs: modules and rates, what the text encoder reads, losses, memory.

The model is built without its weights, so that an experiment can be looked at where they are not.
"""

from collections.abc import Iterator

import torch
from torch import nn

from semivl.config import Config
from semivl.language.text import definition_prompts, name_prompts
from semivl.methods import Method, create
from semivl.nets.vlm import outline_vlm
from semivl.training.guide import chosen_guide
from semivl.training.memory import expected
from semivl.training.step import build_optimizer, learning_rate
from semivl.training.trainer import apply_compute

Rows = list[tuple[str, ...]]
SHOWN = 3
"""prompts of a kind that are shown"""


def summary(config: Config) -> dict[str, Rows]:
    """Tables by title; the first row of each names the columns.

    Raises:
        ConfigError: the method or the models that the experiment names cannot be used.
    """
    method = create(config.method)
    with torch.device("meta"):
        vlm = outline_vlm(config.vlm, config.classes, config.train.crop)
        guide = chosen_guide(config, vlm, outline_vlm)
        # what reads text of its own is outlined as it is when finished: text towers have no outline
        model = method.build(config.classes, vlm, not method.reads_text, guide)
    apply_compute(model, config.compute.model_copy(update={"compile": False}))
    needs = expected(config, method, model)
    t = config.train
    return {
        "modules": [("module", "parameters", "learning", "learning rate"), *_modules(model, config)],
        "text": [("what", "how many", "such as"), *_prompts(config)],
        "losses": [("loss", "what and with which weight"), *method.describe().items(), *_guide(config, method)],
        "steps": [
            ("steps", "labelled images a step", "crop", "learning rate at 0, half, end"),
            (
                f"{t.steps:,}",
                str(t.batch),
                f"{t.crop} px",
                " ".join(f"{learning_rate(t, s, method.restarts):.1e}" for s in (0, t.steps // 2, t.steps - 1)),
            ),
        ],
        "memory": [
            ("expected memory", "MiB", "what"),
            ("weights", f"{needs.weights:.0f}", "of all modules above"),
            ("training", f"{needs.training:.0f}", "weights, gradients, AdamW's state, activations at their peak"),
            ("prediction", f"{needs.prediction:.0f}", f"weights and {config.evaluation.batch} windows"),
        ],
    }


def _modules(model: nn.Module, config: Config) -> Iterator[tuple[str, ...]]:
    learns = any(p.requires_grad for p in model.parameters())
    rates = {
        id(p): config.train.learning_rate * group["multiplier"]
        for group in (build_optimizer(model, config.train).param_groups if learns else ())
        for p in group["params"]
    }
    for name, module in _parts(model):
        parameters = list(module.parameters())
        learning = [p for p in parameters if p.requires_grad]
        found = sorted({rates[id(p)] for p in learning})
        rate = ", ".join(f"{r:.1e}" for r in found) or "frozen"
        yield name, _count(parameters), _count(learning), rate
    yield "all", _count(model.parameters()), _count(p for p in model.parameters() if p.requires_grad), ""


def _guide(config: Config, method: Method) -> Rows:
    """Who guides, for a method that is guided."""
    g = config.guidance
    named = g.model or (g.vlm and g.vlm.model) or "a frozen copy of the student's encoder"
    who = f"label maps in {g.labels}" if g.labels else named
    return [("guide", who)] if method.takes_guide else []


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children, a decoder's one by one."""
    for name, child in model.named_children():
        if name == "decoder":
            yield from ((f"decoder.{inner}", module) for inner, module in child.named_children())
        else:
            yield name, child


def _count(parameters) -> str:
    return f"{sum(p.numel() for p in parameters):,}"


def _prompts(config: Config) -> Iterator[tuple[str, ...]]:
    for what, prompts in (
        ("names", name_prompts(config.classes)),
        ("definitions", definition_prompts(config.classes)),
    ):
        yield what, str(len(prompts)), "; ".join(prompts[:SHOWN]) + ("; ..." if len(prompts) > SHOWN else "")


def as_comment(tables: dict[str, Rows]) -> str:
    """The tables as comment lines of YAML, columns aligned."""
    lines = []
    for rows in tables.values():
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines += [
            "#",
            *("# " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows),
        ]
    return "\n".join(lines)
