"""`semivl predict`: masks for a folder of photos, an S3 prefix, or a snapshot."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer


def predict(
    source: Annotated[str, typer.Argument(help="folder, photo, s3://BUCKET/PREFIX, or DATASET@VERSION (or @HEAD)")],
    output: Annotated[str, typer.Argument(help="folder, or a prefix s3://BUCKET/PREFIX in the configured bucket")],
    model: Annotated[str, typer.Option(help="NAME@champion, NAME/7, or the folder of a bundle")],
    split: Annotated[str | None, typer.Option(help="of a snapshot: train or val; all of it if left out")] = None,
    confidence: Annotated[bool, typer.Option("--confidence", help="also every pixel's probability, as PNG")] = False,
    overlays: Annotated[bool, typer.Option("--overlays", help="also the photos tinted by class, as JPEG")] = False,
    rle: Annotated[bool, typer.Option("--rle", help="also COCO's run lengths, in the manifest")] = False,
    coco: Annotated[bool, typer.Option("--coco", help="also coco.json, a COCO data set of the masks")] = False,
    batch: Annotated[int, typer.Option(min=1, max=64, help="photos of equal size predicted together")] = 1,
    max_pixels: Annotated[int, typer.Option(min=1, help="photos with more pixels are refused")] = 64_000_000,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto")] = "auto",
) -> None:
    """Predict masks. Run again it goes on: what is predicted stays while photo, model and settings are the same."""
    from semivl.cli.common import apply_environment, show_table, working

    apply_environment()
    from semivl.serving.predict_job import checked, prepare

    job = checked(
        source=source, output=output, model=model, split=split, device=device, confidence=confidence,
        overlays=overlays, rle=rle, coco=coco, batch=batch, max_pixels=max_pixels,
    )  # fmt: skip
    with working(f"loading {model}"):
        work = prepare(job)
    with _bar(source) as progress:
        done = work(progress)
    show_table([done.row()])
    for code, count in sorted(done.refused.items()):
        print(f"{code}: {count} photos refused; the manifest says why, docs/codes.md what to do")
    print(f"{done.address}/predictions.jsonl")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """What to call with the photos done and all photos: moves a bar on a terminal, else tells every tenth."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(highlight=False, markup=False, soft_wrap=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not sys.stdout.isatty()) as bar:
        task, before = bar.add_task(what, total=None), 0

        def step(done: int, total: int) -> None:
            nonlocal before
            bar.update(task, completed=done, total=total)
            if bar.disable and done * 10 // total > before * 10 // total:
                print(f"{what}: {done} of {total} photos", flush=True)
            before = done

        yield step
