"""PyTorch against onnxruntime: milliseconds an image with the same threads, and largest differences: docs/export.md.

    python -m benchmarks.export                                  # the demo's shapes, weights at random
    python -m benchmarks.export --experiment voc-92 --sizes 256 512
    python -m benchmarks.export --model semivl-scenes@champion --source PHOTOS

Weights decide nothing about time. They do about differences: without --model, the encoder's are the experiment's where
they can be had (--pretrained) and the decoder's at random.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from semivl.cli.common import show_table
from semivl.config import Config, load
from semivl.methods import create
from semivl.nets.vlm import load_vlm, outline_vlm
from semivl.serving.export import Exportable, export, read_onnx, smallest_side
from semivl.serving.finished import load_model
from semivl.training.bundle import Predictor, load_bundle, save_bundle

ROUNDS = 5


def untrained(config: Config, folder: Path, pretrained: bool) -> Predictor:
    """A model in the experiment's shapes whose decoder learned nothing."""
    torch.manual_seed(0)
    vlm = (load_vlm if pretrained else outline_vlm)(config.vlm, config.classes, config.train.crop)
    model = create(config.method).build(config.classes, vlm, False)
    if not pretrained:
        model = model.to_empty(device="cpu")
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.05)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                torch.nn.init.normal_(buffer, 1.0 if "std" in name or "var" in name else 0.0, 0.05)
    save_bundle(folder, config, model, vlm.student().architecture)
    return load_bundle(folder)


def milliseconds(run: Callable[[torch.Tensor], object], images: torch.Tensor) -> tuple[float, float]:
    """CPU time and time by the clock, medians of a few rounds, after one that does not count.

    With one thread the CPU time is what the clock would say on a core of one's own.
    """
    run(images)
    taken = []
    for _ in range(ROUNDS):
        begun = time.process_time(), time.perf_counter()
        run(images)
        taken.append((time.process_time() - begun[0], time.perf_counter() - begun[1]))
    return 1000 * statistics.median(cpu for cpu, _ in taken), 1000 * statistics.median(clock for _, clock in taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="demo")
    parser.add_argument("--pretrained", action="store_true", help="load the experiment's encoder")
    parser.add_argument("--model", help="a finished model instead: MODEL@ALIAS, MODEL/VERSION or a bundle's folder")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--source", type=Path, help="folder of real photos to compare on")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if chosen.model:
            found = load_model(chosen.model)
            predictor, named = found.predictor, found.named
        else:
            predictor, named = untrained(load(chosen.experiment), folder, chosen.pretrained), chosen.experiment
        done = export(predictor, named, folder / "model.onnx", photos=chosen.source)
        run, model = read_onnx(done.path, chosen.threads), Exportable(predictor).eval()
        bytes_ = done.path.stat().st_size
        rows = []
        for size in chosen.sizes:
            if size < smallest_side(predictor.model):
                continue
            images = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
            with torch.inference_mode():
                ours = milliseconds(model, images)
            theirs = milliseconds(run, images)
            row: dict[str, object] = {"size": size}
            for kind, one, other in zip(("CPU ms", "clock ms"), ours, theirs, strict=True):
                row |= {f"PyTorch {kind}": f"{one:.0f}", f"onnxruntime {kind}": f"{other:.0f}"}
            rows.append(row | {"ratio of CPU": f"{ours[0] / theirs[0]:.2f}"})
    threads = f"{chosen.threads} of {os.cpu_count()} cores, torch {torch.__version__}"
    show_table(rows, f"{named}, {len(predictor.classes)} classes, {bytes_ / 1e6:.1f} MB of ONNX, {threads}")
    show_table(
        [
            {"compared on": what, "images": d.images, "left out": d.left_out, "largest difference": f"{d.logits:.1e}",
             "largest logit": f"{d.largest:.3g}", "same class": f"{d.equal:.4%}"}
            for what, d in (("made images", done.made), ("photos", done.photos)) if d
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
