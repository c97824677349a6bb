"""`semivl label-next` and `semivl import-labels`: which masks to draw, and what was drawn."""

import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from semivl.cli.common import Changes, Experiment, apply_environment, load_checked, show_table, working


class Tool(Enum):
    """Where an export comes from."""

    LABEL_STUDIO = "label-studio"
    CVAT = "cvat"


def label_next(
    count: Annotated[int, typer.Argument(metavar="N", min=1, help="images to choose")],
    experiment: Experiment,
    model: Annotated[
        str | None, typer.Option(help="NAME@ALIAS or NAME/VERSION; the experiment's champion where left out")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="folder to write; .semivl/label-next/DATASET where left out")
    ] = None,
    seed: Annotated[int, typer.Option(help="another seed, another draw")] = 0,
    pool: Annotated[int, typer.Option(min=1, help="images to look at, drawn at random where there are more")] = 10_000,
    changes: Changes = None,
) -> None:
    """Choose the images whose masks would help most; write a gallery, and tasks for Label Studio and CVAT."""
    config = load_checked(experiment, changes)[0]
    apply_environment()
    from semivl.serving.label_next import label_next as choose
    from semivl.settings import home

    folder = output or home() / "label-next" / config.data.dataset

    with working(f"looking at the images of {config.data.dataset}") as say:

        def told(done: int, total: int) -> None:
            if done % 100 == 0 or done == total:
                say(f"{done} of {total} images looked at")

        head = choose(config, count, folder, model, seed, pool, told)
    print(f"{head.chosen} of {head.unlabelled} unlabelled images chosen by {head.model}, {head.scored} looked at")
    print(f"left out as near-duplicates: {head.near_labelled} of labelled images, {head.near_chosen} of chosen ones")
    print(f"gallery       {folder / 'index.html'}")
    print(f"Label Studio  {folder / 'label-studio'}")
    print(f"CVAT          {folder / 'cvat'}")


def import_labels(
    export: Annotated[Path, typer.Argument(metavar="FILE", help="what the tool exported")],
    experiment: Experiment,
    tool: Annotated[Tool, typer.Option("--from", help="the tool that it comes from")],
    output: Annotated[
        Path | None, typer.Option(help="folder to add to, in the layout `folder`; .semivl/labels/DATASET if left out")
    ] = None,
    changes: Changes = None,
) -> None:
    """Turn an annotation tool's export into masks that the next ingest takes in."""
    config = load_checked(experiment, changes)[0]
    apply_environment()
    from semivl.serving.label_import import import_labels as take_in
    from semivl.settings import home

    folder = output or home() / "labels" / config.data.dataset
    done = take_in(config, export, tool.value, folder)
    print(f"{done.images} masks in {folder}; {done.undrawn} images of the export that nobody drew on")
    show_table([{"class": name, "pixels": pixels} for name, pixels in done.pixels.items()])
    print("\nTo take them into the dataset:")
    settings = [part for setting in [*(changes or ()), *done.settings] for part in ("-s", setting)]
    print(shlex.join(["semivl", "run", experiment, *settings]))
