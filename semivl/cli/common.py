"""What the commands share: arguments, the experiment with its changes, tables, and the sign that something goes on."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from semivl.config import Config, VlmConfig

Experiment = Annotated[str, typer.Argument(help="name of a file in conf/experiment")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="a setting that differs, such as train.steps=200"),
]
_WIDE = 200
"""columns of a table that goes into a file or a pipe: nothing is folded that need not be"""


def load_checked(experiment: str, changes: list[str] | None) -> tuple["Config", dict[str, Any]]:
    """The experiment with the changes of the command line, and the changes as the flows take them."""
    from semivl.config import load

    overrides = as_overrides(changes)
    return load(experiment, overrides), overrides


def named_vlm(name: str) -> "VlmConfig":
    """The model of that file in conf/vlm; one with a colon is a model itself, such as spoken:PATH."""
    from semivl.config import VlmConfig, check, expanded

    described = {"model": name} if ":" in name else expanded({"guidance": {"vlm": name}})["guidance"]["vlm"]
    return check(VlmConfig, described, f"vlm {name}")


def as_overrides(changes: list[str] | None) -> dict[str, Any]:
    """The changes of the command line, nested.

    Raises:
        ConfigError: CONF005, one of them is not KEY=VALUE.
    """
    from omegaconf import OmegaConf

    from semivl.errors import ConfigError

    for change in changes or ():
        if "=" not in change:
            raise ConfigError("CONF005", f"{change} is no setting.", "Write KEY=VALUE, such as train.steps=200.")
    nested: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(changes or ())))
    return nested


def apply_environment() -> None:
    """Lets this process find the services in use; before the first import of Prefect or MLflow."""
    from semivl.services import environment

    environment.apply_environment()


def show_table(rows: list[dict[str, Any]], title: str | None = None) -> None:
    """Rows under their names, the addresses whole."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDE
    console.print(table)


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal that something goes on; gives what says a line of it."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        print(what, flush=True)
        yield lambda line: print(line, flush=True)
        return
    with console.status(what):
        yield console.print
