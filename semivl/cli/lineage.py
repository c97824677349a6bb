"""`semivl lineage` and `semivl reproduce`: what a model version was made of, and whether it can be made again."""

from pathlib import Path
from typing import Annotated

import typer

from semivl.cli.common import apply_environment, show_table, working

Version = Annotated[str, typer.Argument(metavar="NAME/VERSION", help="NAME/7, NAME@champion, or models:/NAME/7")]


def lineage(
    version: Version,
    as_json: Annotated[bool, typer.Option("--json", help="all of it, as JSON")] = False,
    samples: Annotated[
        Path | None, typer.Option(help="file for the hashes of every training sample: .csv or .parquet")
    ] = None,
) -> None:
    """Show what a model version was made of: data, definitions, settings, code, packages, and what was found of it."""
    apply_environment()
    from semivl.data.store import open_store
    from semivl.registry import lineage as rooms
    from semivl.registry.address import model_and_version

    if samples:
        require_ending(samples)
    made = rooms.lineage(*model_and_version(version))
    if samples:
        write_table(samples, rooms.training_samples(open_store(), made))
    if as_json:
        print(made.model_dump_json(indent=1))
        return
    for title, pairs in (rooms.facts(made) | rooms.judged(made)).items():
        show_table([{"": name, title: value} for name, value in pairs])
        print()
    classes = [{"class": one.name, "asked by": ", ".join(one.phrases)} for one in made.config.classes.classes]
    show_table(classes, f"prompt: {made.config.classes.prompt}")
    if samples:
        print(samples)


def reproduce(
    version: Version,
    folder: Annotated[
        Path | None, typer.Option(help="where to train; .semivl/reproduced/NAME-VERSION if left out")
    ] = None,
) -> None:
    """Train a version again from its own record, and compare the weights. Exit status 1 where they differ."""
    apply_environment()
    import logging

    from semivl.data.store import open_store
    from semivl.registry.address import model_and_version
    from semivl.registry.lineage import lineage as trace
    from semivl.registry.reproduce import reproduce as again
    from semivl.settings import home

    logging.basicConfig(level=logging.WARNING)
    made = trace(*model_and_version(version))
    place = folder or home() / "reproduced" / f"{made.model}-{made.version}"
    with working(f"training {made.model} version {made.version} again in {place}"):
        found = again(open_store(), made, place)
    loss = "no step in common" if found.loss_difference is None else f"{found.loss_difference:.3g}"
    miou = found.unscored if found.miou_difference is None else f"{found.miou_difference:.3g}"
    show_table(
        [
            {"": "weights", "found": "equal, byte for byte" if found.equal else "differ"},
            {"": "largest difference of a weight", "found": f"{found.largest_difference:.3g}"},
            {"": f"largest difference of the loss, {found.steps_compared} logged steps", "found": loss},
            {"": "difference of the mIoU, points", "found": miou},
            {"": "the second training's model", "found": found.folder},
        ]
    )
    for words in found.differs:
        print(f"not as it was: {words}")
    if not found.equal:
        raise typer.Exit(1)


def require_ending(path: Path) -> None:
    """Raises ConfigError CONF031 for a table's file that is neither .csv nor .parquet."""
    from semivl.errors import ConfigError

    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError("CONF031", f"{path} is no table's file.", "Name a file that ends in .csv or .parquet.")


def write_table(path: Path, table) -> None:
    """The table as CSV or Parquet, by the file's ending."""
    import pyarrow.csv
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
