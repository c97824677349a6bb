"""How soon the language-guided decoder leaves the background's plateau, by its rate and the scale of its cosines.

    export SEMIVL_REAL_DATA=FOLDER              # holds voc2012-subset/; docs/small-vlm.md makes the model
    python -m benchmarks.decoder_scale          # docs/results.md's table

The network of conf/experiment/photos on its locked encoder learns from masks alone, the background and ten classes of
VOC, in the same crops each time. Scored on every fourth of the val photos. No service is needed.
"""

import argparse
import itertools
import statistics
from dataclasses import replace

import torch

from benchmarks.transfer import AllMasks, model_scores
from benchmarks.transfer_photos import voc_setting
from semivl.config import load
from semivl.nets.decoder import DecoderShape
from semivl.nets.segmenter import Segmenter
from semivl.nets.vlm import load_vlm
from semivl.training.step import build_optimizer, take_step

LAST = 50
"""steps whose mean loss is told"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multipliers", type=float, nargs="+", default=[10, 4], help="train.decoder_multiplier")
    parser.add_argument("--scales", type=float, nargs="+", default=[1, 10], help="method.settings.decoder.scale")
    parser.add_argument("--steps", type=int, default=200, help="of 8 crops")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    setting, photos = voc_setting(), load("photos")
    setting = replace(setting, evaluation=setting.evaluation.chosen(range(0, len(setting.evaluation), 4)))
    learner = AllMasks(None)
    vlm = load_vlm(photos.vlm, setting.config.classes, setting.config.train.crop)
    masked = setting.strong_photos.and_(setting.weak_photos)
    print(f"| rate | scale | seed | loss of the last {LAST} steps | mIoU |\n|---|---|---|---|---|")
    for multiplier, scale, seed in itertools.product(chosen.multipliers, chosen.scales, chosen.seeds):
        changes = {"steps": chosen.steps, "batch": 8, "decoder_multiplier": multiplier, "seed": seed}
        config = setting.config.train.model_copy(update=changes)
        shown = replace(setting.shown(seed), strong=masked, strong_tags=masked.tags(len(setting.names)), config=config)
        shape = DecoderShape.model_validate(photos.method.settings["decoder"] | {"scale": scale})
        torch.manual_seed(seed)
        model = Segmenter(vlm, vlm.required_text("the decoder").names, shape, "none").train()
        optimizer = build_optimizer(model, config)
        losses = [
            float(take_step(learner, model, optimizer, shown.step(step), config, step)["total"])
            for step in range(chosen.steps)
        ]
        rate, loss = multiplier * config.learning_rate, statistics.mean(losses[-LAST:])
        print(f"| {rate:g} | {scale:g} | {seed} | {loss:.2f} | {model_scores(model, setting)['all']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
