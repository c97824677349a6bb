"""A finished model as one file for other runtimes: ONNX, or torch.export's .pt2.

    semivl export semivl-photos@champion photos.onnx --check data/photos/images

The file takes `image`, (B, 3, H, W) uint8 RGB of any number and size from `smallest_side` on. It gives `logits`,
(B, N, H, W) float32, and `mask`, (B, H, W) uint8, their argmax. Normalisation, class text, the resizing of the position
table and the padding to whole patches are inside. The sliding window is not: the file is what is applied to one window,
and its metadata say how the model was scored. What was written is compared with PyTorch before it gets its name.
"""

import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from semivl import __version__
from semivl.config import Record
from semivl.errors import ExportError
from semivl.nets.decoder import AcrossClasses
from semivl.nets.dpt import DptHead
from semivl.nets.encoder import DenseEncoder
from semivl.serving.export_check import Difference, Run, made_images, measured, photo_windows, require_equal
from semivl.training.bundle import Predictor

Format = Literal["onnx", "torch"]
OPSET = 20
SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".pt2": "torch"}
NEEDED = ("onnx", "onnxscript", "onnxruntime")
INFORMATION = "semivl.json"
"""name of the metadata inside a .pt2"""


class Exported(Record):
    """What was written, and how near it is to PyTorch."""

    path: Path
    format: Format
    smallest_side: int
    made: Difference
    """on made images of several sizes"""
    photos: Difference | None
    """on the windows of photos, where a folder of them was given"""


class Exportable(nn.Module):
    """Images (B, 3, H, W) uint8 to logits (B, N, H, W) float32 and mask (B, H, W) uint8."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model, self.method = predictor.model, predictor.method

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.method.predict(self.model, image.to(torch.float32) / 255).float()
        return logits, logits.argmax(1).to(torch.uint8)


def export(
    predictor: Predictor, named: str, output: Path, format: str | None = None, photos: Path | None = None
) -> Exported:
    """Writes the model, after it was found equal to PyTorch's up to `export_check`'s tolerance.

    Args:
        named: what the metadata call the model: NAME/VERSION, or the folder's name.
        format: onnx or torch; by the ending of `output` where None.
        photos: folder of photos to compare on besides.

    Raises:
        ExportError: EXP001 a package is missing, EXP002 no such format, EXP003 the output is there, EXP004 no photo in
            the folder can be used, EXP005 the file differs from PyTorch, EXP007 the model cannot be exported.
    """
    chosen = _format(output, format)
    if predictor.evaluation.refine:
        what = f"{named} is refined by groups (evaluation.refine), which no graph holds."
        raise ExportError("EXP007", what, "Export a model that was trained without evaluation.refine.")
    _require_free(output)
    side = smallest_side(predictor.model)
    windows = photo_windows(photos, predictor.evaluation.window, side) if photos else None
    model = Exportable(predictor).eval()
    facts = information(predictor, named, side)
    with _quiet():
        body = WRITERS[chosen](_traced(model, side), facts)
    part = output.with_name(f".{os.getpid()}-{output.name}")
    try:
        part.write_bytes(body)
        run = READERS[chosen](part)
        made = require_equal(measured(model, run, made_images(side)), output)
        of_photos = require_equal(measured(model, run, windows), output) if windows else None
        part.rename(output)
    finally:
        part.unlink(missing_ok=True)
    return Exported(path=output, format=chosen, smallest_side=side, made=made, photos=of_photos)


def smallest_side(model: nn.Module) -> int:
    """Pixels that both sides of an image need: two patches, or two pooled places of attention across classes, or three
    patches where a DPT head halves their grid.

    PyTorch treats a smaller grid by another rule, which a graph of one rule cannot hold.
    """
    patch = max(m.architecture.patch for m in model.modules() if isinstance(m, DenseEncoder))
    pools = [m.pool for m in model.modules() if isinstance(m, AcrossClasses)]
    halved = any(isinstance(m, DptHead) for m in model.modules())
    return patch * max(3 if halved else 2, 2 * max(pools, default=1))


def information(predictor: Predictor, named: str, side: int) -> dict[str, str]:
    """The file's metadata: names and values, as text."""
    encoder = next(m for m in predictor.model.modules() if isinstance(m, DenseEncoder)).architecture
    return {
        "semivl.model": named,
        "semivl.version": __version__,
        "semivl.classes": json.dumps(predictor.classes.names, ensure_ascii=False),
        "semivl.input": f"image (B, 3, H, W) uint8 RGB; H and W at least {side}",
        "semivl.output": "logits (B, N, H, W) float32; mask (B, H, W) uint8, their argmax",
        "semivl.normalisation": json.dumps({"inside": True, "mean": encoder.mean, "std": encoder.std}),
        "semivl.smallest_side": str(side),
        "semivl.evaluation": predictor.evaluation.model_dump_json(),
    }


def read_onnx(path: Path, threads: int = 0) -> Run:
    """The file in onnxruntime on the CPU; `threads` 0 are onnxruntime's own choice."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        logits: Any = session.run(["logits"], {"image": images.numpy()})[0]
        return torch.from_numpy(logits)

    return run


def read_torch(path: Path) -> Run:
    """The .pt2 as PyTorch runs it."""
    model = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return lambda images: model(images)[0]


def _write_onnx(program: "torch.export.ExportedProgram", facts: dict[str, str]) -> bytes:
    _require_packages()
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program, (), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["image"], output_names=["logits", "mask"],
        )  # fmt: skip
    assert made is not None
    proto = made.model_proto
    proto.doc_string = f"{facts['semivl.model']}, exported by semivl {__version__}"
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def _write_torch(program: "torch.export.ExportedProgram", facts: dict[str, str]) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={INFORMATION: json.dumps(facts, ensure_ascii=False)})
    return file.getvalue()


WRITERS: dict[str, Callable[["torch.export.ExportedProgram", dict[str, str]], bytes]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
}
READERS: dict[str, Callable[[Path], Run]] = {"onnx": read_onnx, "torch": read_torch}


def _traced(model: Exportable, side: int) -> "torch.export.ExportedProgram":
    """The graph for any number of images of any size from `side` on.

    The example's patch grid has sides of which none is special: neither those of the position table nor one another's.
    """
    patch = next(m for m in model.modules() if isinstance(m, DenseEncoder)).architecture.patch
    example = torch.zeros(2, 3, side + patch, side + 5 * patch, dtype=torch.uint8)
    batch, height, width = (torch.export.Dim(n, min=least) for n, least in (("b", 1), ("h", side), ("w", side)))
    try:
        with torch.no_grad():
            return torch.export.export(
                model,
                (example,),
                dynamic_shapes=({0: batch, 2: height, 3: width},),
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # torch raises whatever it stumbles over
        said = " ".join(str(error).split())[:300]
        what = f"the model cannot be exported: {said}."
        raise ExportError("EXP007", what, "Export a model of another method, and report this one.") from error


def _format(output: Path, format: str | None) -> Format:
    chosen = SUFFIXES.get(output.suffix) if format is None else format
    if chosen in get_args(Format):
        if chosen == "onnx":
            _require_packages()
        return chosen  # pyright: ignore[reportReturnType]
    what = f"{format} is no format." if format else f"the ending of {output} stands for no format."
    raise ExportError("EXP002", what, "Use --format onnx or torch, or let the output end in .onnx or .pt2.")


def _require_packages() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        what = f"ONNX needs {', '.join(missing)}, which is not installed."
        raise ExportError("EXP001", what, "pip install 'semivl[export]', or use --format torch.")


def _require_free(output: Path) -> None:
    if output.exists():
        raise ExportError("EXP003", f"{output} is there already.", "Remove it, or name another output.")
    if not output.parent.is_dir():
        raise ExportError("EXP003", f"there is no folder {output.parent}.", "Make it, or name another output.")


@contextmanager
def _quiet() -> Any:
    """Leaves torch's own talk about its export out."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
