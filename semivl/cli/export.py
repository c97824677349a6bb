"""`semivl export`: a finished model as one file for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from semivl.cli.common import apply_environment, show_table, working


def export(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="MODEL@ALIAS, MODEL/VERSION, or a bundle's folder")],
    output: Annotated[Path, typer.Argument(help="file to write: .onnx or .pt2")],
    format: Annotated[str | None, typer.Option(help="onnx or torch; by the output's ending if left out")] = None,
    check: Annotated[Path | None, typer.Option(help="folder of photos to compare with PyTorch on")] = None,
) -> None:
    """Write a finished model as ONNX or torch.export, and compare it with PyTorch before it gets its name."""
    apply_environment()
    from semivl.serving.export import export as write
    from semivl.serving.finished import load_model

    model = load_model(source)
    with working(f"exporting {model.named}"):
        done = write(model.predictor, model.named, output, format, check)
    rows = [
        {
            "compared on": what,
            "images": found.images,
            "left out": found.left_out,
            "largest difference": f"{found.logits:.1e}",
            "largest logit": f"{found.largest:.3g}",
            "same class": f"{found.equal:.4%}",
        }
        for what, found in (("made images", done.made), ("photos", done.photos))
        if found
    ]
    show_table(rows)
    print(f"{done.path}: {model.named}, {done.format}, images of {done.smallest_side} pixels a side or more")
