"""A loop small enough for tests: a few scenes, a CLIP with random weights, a narrow decoder, a few steps."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from semivl.settings import home

LABELLED, UNLABELLED, EVALUATION, SIDE = 6, 12, 5, 64


@cache
def scenes() -> Path:
    """A source folder in the layout `folder`, with lists."""
    from semivl.data.scenes import write_scenes

    folder = home() / "tests" / "scenes"
    write_scenes(folder, 5, LABELLED, UNLABELLED, EVALUATION, SIDE)
    return folder


@cache
def random_clip() -> Path:
    """A folder in open_clip's own format; the model knows nothing."""
    import open_clip
    import torch

    from semivl.training.pretrain import save

    vision = {"image_size": 64, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16, "pool_type": "avg"}
    text = {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    return save(open_clip.CLIP(**model), {"model_cfg": model, "preprocess_cfg": {}}, home() / "tests" / "clip")


def overrides(dataset: str, steps: int = 2, source: Path | None = None) -> dict[str, Any]:
    """What turns the experiments `demo` and `demo-supervised` into the small loop on a dataset of its own."""
    decoder = {"channels": 16, "up": [16, 16], "skip": [8, 8], "dilations": [1, 2], "layers": 1}
    return {
        "model": f"semivl-{dataset}",
        "data": {"dataset": dataset, "source": str(source or scenes()), "shard_samples": 12},
        "vlm": {"model": f"local-dir:{random_clip()}", "skip_blocks": [0, 1]},
        "method": {"settings": {"decoder": decoder}},
        "compute": {"device": "cpu", "workers": 0, "threads": 1},
        "train": {
            "steps": steps, "batch": 2, "crop": 32, "short_side": 32, "learning_rate": 1e-3,
            "checkpoint_every": 5, "log_every": 2, "preview_every": 1000,
        },
        "evaluation": {"window": 64, "stride": 64, "latency_sizes": [[64, 48]]},
    }  # fmt: skip


def parameters(dataset: str, experiment: str = "demo-supervised", **changes: Any) -> dict[str, Any]:
    """The parameters of a flow run on the small loop."""
    return {"experiment": experiment, "overrides": overrides(dataset, **changes)}


def as_json(value: Any) -> str:
    return json.dumps(value)
