"""Prediction end to end against its two bounds in the same run: decoding alone, and the model alone.

    python -m benchmarks.predict                                   # made JPEGs of 500 x 375, the demo's model untrained
    python -m benchmarks.predict --source FOLDER --model NAME@champion --batch 8

On a GPU the slower of the two is the bound, as they run side by side. Where the model runs on the CPU both take from
the same cores, and the bound is the time of one after the other. The processes that check are started before.
"""

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.jpegs import described, jpegs
from semivl.config import load
from semivl.data.checks import Limits
from semivl.data.decode import decode_image
from semivl.methods import create
from semivl.nets.vlm import load_vlm
from semivl.serving.finished import Model, load_model
from semivl.serving.predict import PredictSettings, predict
from semivl.serving.predict_ahead import WORKERS
from semivl.serving.predict_answer import answers
from semivl.serving.predict_outputs import LocalOutputs
from semivl.serving.predict_photos import open_photos
from semivl.training.bundle import save_bundle

TURNS = 3


def untrained(folder: Path) -> Path:
    """The demo's model as a bundle; what its weights are does not matter to its speed."""
    config = load("demo-supervised")
    vlm = load_vlm(config.vlm, config.classes, config.train.crop)
    save_bundle(folder, config, create(config.method).build(config.classes, vlm, True), vlm.student().architecture)
    return folder


def photos_in(folder: Path, bodies: list[bytes]) -> Path:
    folder.mkdir()
    for number, body in enumerate(bodies):
        (folder / f"{number:05}.jpg").write_bytes(body)
    return folder


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def measured(model: Model, source: Path, bodies: list[bytes], batch: int, place: Path) -> dict[str, float]:
    """The least seconds of each in several turns, so that a busy machine slows all of them alike."""
    decoded = [decode_image(body) for body in bodies]
    alike = [decoded[first : first + batch] for first in range(0, len(decoded), batch)]
    alike = [group for group in alike if len({photo.shape for photo in group}) == 1]
    scale = len(decoded) / sum(map(len, alike))  # groups of unequal photos, of a folder of one's own, are left out

    def decode() -> None:
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(decode_image, bodies))

    def end_to_end() -> None:
        shutil.rmtree(place / "out", ignore_errors=True)
        predict(model, open_photos(str(source), None, Limits()), LocalOutputs(place / "out"), settings)

    settings = PredictSettings(batch=batch)  # pyright: ignore[reportCallIssue]
    end_to_end()
    best = {"decode": 1e9, "model": 1e9, "all": 1e9}
    for _ in range(TURNS):
        best["decode"] = min(best["decode"], seconds(decode))
        best["model"] = min(best["model"], scale * seconds(lambda: [answers(model.predictor, g) for g in alike]))
        best["all"] = min(best["all"], seconds(end_to_end))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder of JPEGs")
    parser.add_argument("--model", help="as `semivl predict` takes it")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of torch; its own choice if left out")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    bodies = jpegs(given.count, given.source)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_model(given.model or str(untrained(place / "bundle")), device)
        best = measured(model, photos_in(place / "photos", bodies), bodies, given.batch, place)
    side_by_side = device == "cuda"
    bound = max(best["decode"], best["model"]) if side_by_side else best["decode"] + best["model"]
    name = torch.cuda.get_device_name() if side_by_side else platform.machine()
    print(
        f"{os.cpu_count()} CPU cores, {name}, torch {torch.__version__} with {torch.get_num_threads()} threads; "
        f"{described(bodies)}; model {given.model or 'of demo-supervised, untrained'}, batch {given.batch}"
    )
    print("\n| | photos a second |\n|---|---|")
    print(f"| decoding alone, {WORKERS} threads | {len(bodies) / best['decode']:.1f} |")
    print(f"| the model alone, photos decoded before | {len(bodies) / best['model']:.1f} |")
    print(f"| the bound that follows | {len(bodies) / bound:.1f} |")
    print(f"| `semivl predict`: check, decode, predict, write | {len(bodies) / best['all']:.1f} |")
    print(f"\n`semivl predict` reaches {bound / best['all']:.0%} of its bound")


if __name__ == "__main__":
    main()
