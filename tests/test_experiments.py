"""The paper's rows: every experiment resolves, to the numbers that were published (spec semivl.md, 1.1 and 4.3)."""

import random
from functools import cache
from math import ceil

import pytest

from semivl import config as configuration
from semivl.config import CONF, Config, experiments
from semivl.methods import create

SHIPPED = {
    "voc": (92, 183, 366, 732, 1464, "val", "train_aug"),
    "coco": (232, 463, 925, 1849, 3697, "val"),
    "ade20k": (158, 316, 632, 1263, 2526, "val"),
    "cityscapes": (100, 186, 372, 744, 1488, "val"),
}
IMAGES = {"voc": 10582, "coco": 118287, "ade": 20210, "cityscapes": 2975}
FOLDER = {"voc": "voc", "coco": "coco", "ade": "ade20k", "cityscapes": "cityscapes"}
WORLD = {"voc": 4, "coco": 8, "ade": 8, "cityscapes": 8}
"""the GPUs of the published runs, which decide the length of an epoch"""
EPOCHS = {"voc": 80, "coco": 10, "ade": 40}
STEPS = {
    "voc": (104_880, 104_000, 102_160, 98_480, 91_200),
    "coco": (147_570, 147_280, 146_710, 145_550, 143_240),
    "ade": (100_280, 99_480, 97_920, 94_760, 88_440),
    "cityscapes": (83_880, 83_760, 83_782, 83_979, 83_886),
}
RATES = {  # encoder, decoder, stem
    "voc": (1e-6, 1e-3),
    "coco": (4e-7, 4e-3),
    "ade": (4e-7, 4e-3),
    "cityscapes": (5e-6, 5e-4),
}
ROWS = [(data, size) for data in STEPS for size in SHIPPED[FOLDER[data]] if isinstance(size, int)]


load = cache(configuration.load)


def lines(folder: str, name: object) -> list[str]:
    return (CONF / "splits" / folder / f"{name}.txt").read_text().splitlines()


def rates(config: Config) -> tuple[float, float]:
    t = config.train
    return t.learning_rate * t.backbone_multiplier, t.learning_rate * t.decoder_multiplier


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_resolves_and_its_method_takes_its_settings(name: str):
    config = load(name)
    create(config.method)
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    if "base:" in text:
        assert len([line for line in text.splitlines() if not line.startswith("#")]) < 10


@pytest.mark.parametrize(("folder", "names"), SHIPPED.items())
def test_lists_have_the_published_lengths_and_no_line_twice(folder: str, names: tuple[int | str, ...]):
    lists = {name: lines(folder, name) for name in names}
    lengths = {"val": {"voc": 1449, "coco": 5000, "ade20k": 2000, "cityscapes": 500}[folder], "train_aug": 10582}
    for name, listed in lists.items():
        assert len(listed) == len(set(listed)) == lengths.get(str(name), name)
        assert all(line == line.strip() and " " not in line for line in listed)
        assert name == "val" or not set(listed) & set(lists["val"])
    if folder == "voc":
        assert all(set(lists[size]) <= set(lists["train_aug"]) for size in names if isinstance(size, int))


def test_the_lists_of_ade20k_follow_from_their_rule():
    names = sorted(f"training/ADE_train_{number:08}" for number in range(1, 20211))
    random.Random(0).shuffle(names)
    for share in (128, 64, 32, 16, 8):
        size = round(20210 / share)
        assert lines("ade20k", size) == names[:size]
    assert lines("ade20k", "val") == [f"validation/ADE_val_{number:08}" for number in range(1, 2001)]


@pytest.mark.parametrize(("data", "size"), ROWS)
def test_rows_have_the_published_steps_batch_and_rates(data: str, size: int):
    config = load(f"{data}-{size}")
    epoch = ceil((IMAGES[data] - size) / WORLD[data]) // (8 // WORLD[data])
    steps = epoch * (EPOCHS.get(data) or ceil(83_760 / epoch))
    assert config.train.steps == steps == STEPS[data][SHIPPED[FOLDER[data]].index(size)]
    assert (config.train.batch, config.train.weight_decay) == (8, 0.01)
    assert rates(config) == pytest.approx(RATES[data])
    assert config.data.labelled_list == f"conf/splits/{FOLDER[data]}/{size}.txt"
    assert config.data.evaluation_list == f"conf/splits/{FOLDER[data]}/val.txt"
    assert config.data.dataset == f"{data}-{size}", "a snapshot never loses masks, so splits share none"
    assert config.method.name == "semivl"


@pytest.mark.parametrize(("data", "size"), ROWS)
def test_rows_crop_resize_and_evaluate_as_published(data: str, size: int):
    config = load(f"{data}-{size}")
    t, e = config.train, config.evaluation
    assert t.scale == (0.5, 2.0)
    assert t.crop == (801 if data == "cityscapes" else 512)
    if data in ("voc", "ade"):
        assert (t.short_side, t.long_side, t.antialias, e.short_side) == (512, 2048, False, 512)
    else:
        assert (t.short_side, t.long_side, t.antialias, e.short_side) == (None, None, True, None)
    if data == "cityscapes":
        assert (e.mode, e.window, e.stride) == ("sum_probabilities", 801, 534)
    else:
        assert (e.mode, e.window, e.stride) == ("average_logits", 512, 426)
    assert e.repeat_to_multiple_of == 1


@pytest.mark.parametrize(("data", "size"), ROWS)
def test_rows_have_the_published_model(data: str, size: int):
    config = load(f"{data}-{size}")
    vlm, s = config.vlm, create(config.method).settings  # pyright: ignore[reportAttributeAccessIssue]
    assert (vlm.model, vlm.pretrained) == ("ViT-B-16-quickgelu", "openai")
    assert (vlm.gelu, vlm.layer_norm_eps) == ("exact", 1e-6)
    assert s.decoder.canvas == config.train.crop
    assert (s.confidence, s.dropout, s.cutmix_partner, s.average) == (0.95, 0.5, "same_image", False)
    assert (s.guidance.weight, s.guidance.threshold, s.guidance.scale) == (0.1, 0.9, 100)
    assert s.guidance.text == ("definitions" if data in ("voc", "cityscapes") else "names")
    assert config.classes.joined == (data == "voc")
    assert config.guidance.vlm is None
    if data == "cityscapes":
        assert (vlm.normalisation, vlm.skip_blocks, vlm.conv_stem) == ("own", (4,), True)
        assert (s.text, s.weighting, s.decoder.skip, config.guidance.table_side) == (
            "averages",
            "pixelavg",
            (32, 32),
            512,
        )
        assert config.train.learning_rate * config.train.conv_multiplier == pytest.approx(5e-6)
    else:
        assert (vlm.normalisation, vlm.skip_blocks, vlm.conv_stem) == ("imagenet", (0, 4), False)
        assert (s.text, s.weighting, s.decoder.skip) == ("names", "threshold", (32, 16))
    assert len(config.classes) == {"voc": 21, "coco": 81, "ade": 150, "cityscapes": 19}[data]


BASELINES = [row for row in ROWS if row[0] == "voc" or row[1] in (232, 3697, 158, 2526, 100, 1488)]


@pytest.mark.parametrize(("data", "size"), BASELINES)
def test_baselines_share_all_but_the_method_with_their_row(data: str, size: int):
    row = load(f"{data}-{size}")
    unimatch, supervised = load(f"{row.name}-unimatch"), load(f"{row.name}-supervised")
    assert (unimatch.method.name, supervised.method.name) == ("unimatch", "supervised")
    assert unimatch.vlm.model == "timm:vit_base_patch16_224.augreg_in21k_ft_in1k"
    assert rates(unimatch) == pytest.approx((row.train.learning_rate * 1e-3, rates(row)[1]))
    assert unimatch.method.settings["drop_path"] == 0.1
    assert supervised.vlm == row.vlm and supervised.train == row.train
    for other in (unimatch, supervised):
        same = {"data", "classes", "evaluation"}
        assert other.model_dump(include=same) == row.model_dump(include=same)
        assert other.train.steps == row.train.steps


@pytest.mark.parametrize("size", [92, 1464])
def test_the_ladder_changes_one_thing_a_row(size: int):
    row = load(f"voc-{size}")
    clip, spatial, decoder, guidance = (load(f"voc-{size}-{n}") for n in ("clip", "spatial", "decoder", "guidance"))
    assert clip.vlm == spatial.vlm == decoder.vlm == guidance.vlm == row.vlm
    assert clip.method.settings | {"trains": "spatial"} == spatial.method.settings
    assert (clip.method.settings["features"], clip.method.settings["trains"]) == ("clip", "all")
    assert (rates(clip)[0], rates(spatial)[0]) == pytest.approx((1e-7, 1e-6))
    assert decoder.method.settings["guidance"]["weight"] == 0
    assert guidance.method.settings["guidance"]["text"] == "names"
    for ladder in (decoder, guidance):
        assert ladder.train == row.train
        assert {k: v for k, v in ladder.method.settings.items() if k != "guidance"} == {
            k: v for k, v in row.method.settings.items() if k != "guidance"
        }


@pytest.mark.parametrize("size", [92, 183, 366, 732, 1464])
def test_unimatch_v2_has_its_own_published_numbers(size: int):
    config = load(f"voc-{size}-unimatch-v2")
    assert config.train.steps == ceil((10582 - size) / 4) // 4 * 60
    assert (config.train.batch, config.train.crop) == (16, 518)
    assert rates(config) == pytest.approx((5e-6, 2e-4))
    assert (config.train.short_side, config.train.long_side, config.train.antialias) == (None, None, True)
    assert config.data == load(f"voc-{size}").data
    assert config.vlm.model == "timm:vit_base_patch14_dinov2.lvd142m"
