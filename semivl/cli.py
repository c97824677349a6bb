"""The `semivl` command: a thin door to the services and to the flows, which it starts through their deployments.

Everything heavy is imported inside the commands, so that `semivl --help` answers at once.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from semivl.errors import SemivlError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="From a bucket of images, few of them with masks, to a segmentation model that is promoted only when better.",
)
Experiment = Annotated[str, typer.Argument(help="name of a file in conf/experiment")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="a setting that differs, such as train.steps=200"),
]
DEMO = ("demo-supervised", "demo")


def main() -> None:
    """Runs the command; what a user can mend ends in one line and exit code 2."""
    from semivl.settings import home

    os.environ["SEMIVL_HOME"] = str(home())  # absolute, for processes that start in another folder
    try:
        app()
    except SemivlError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


@app.command()
def up() -> None:
    """Start the embedded services that do not run yet: S3, MLflow, Prefect and a worker."""
    from semivl.services import supervisor

    with waiting("starting the services"):
        supervisor.up()
    show_services()


@app.command()
def down() -> None:
    """Stop the embedded services. Their data stays."""
    from semivl.services import supervisor

    with waiting("stopping the services"):
        supervisor.down()


@app.command()
def status() -> None:
    """Show what runs where, and the current snapshot, run and champion of every dataset."""
    from semivl.services.overview import datasets

    show_services()
    apply_environment()
    show_table("datasets", datasets())


@app.command()
def doctor() -> None:
    """Look for what could keep semivl from working here."""
    from semivl.services import supervisor

    checks = supervisor.doctor()
    for check in checks:
        print(check)


@app.command()
def run(experiment: Experiment, changes: Changes = None) -> None:
    """Ingest, validate, train, evaluate and promote: one turn of the loop, run by a worker."""
    apply_environment()
    row = turn(experiment, changes)
    show_outcomes([row])


@app.command()
def show(experiment: Experiment, changes: Changes = None) -> None:
    """Print the experiment as it would run, every setting resolved."""
    import yaml

    config = checked(experiment, changes)
    print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
