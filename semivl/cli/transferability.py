"""`semivl transferability`: whether what masks teach of objects carries over to classes without masks."""

import sys
from typing import Annotated

import typer

from semivl.cli.common import Changes, Experiment, apply_environment, load_checked, show_table


def transferability(
    experiment: Experiment,
    images: Annotated[int, typer.Option(help="photos of a class that it is measured on, at the most", min=1)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="all of it, as JSON; progress on standard error")] = False,
    changes: Changes = None,
) -> None:
    """Leave each class with masks out once, and measure how much of it a label net finds that never saw it."""
    apply_environment()
    from semivl.data.cache import ShardCache
    from semivl.data.snapshot import read
    from semivl.data.store import open_store
    from semivl.settings import home
    from semivl.training.transferability import transferability as measure

    config = load_checked(experiment, changes)[0]
    store = open_store()
    cache = ShardCache(store, config.data.dataset, home() / "cache" / "shards", config.compute.cache_bytes)
    told = sys.stderr if as_json else sys.stdout
    found = measure(
        config, read(store, config.data.dataset), cache, lambda line: print(line, file=told, flush=True), images
    )
    if as_json:
        print(found.model_dump_json(indent=1))
        return
    rows = [{"left out": n, "foreground IoU": f"{v:.1f}", "photos": found.images[n]} for n, v in found.iou.items()]
    show_table(rows)
    for name, why in found.untested.items():
        print(f"not tested: {name}, since {why}")
    print(f"mean {found.mean:.1f}, spread {found.spread:.1f}, {found.steps} steps each")
