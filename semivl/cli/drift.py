"""`semivl drift`: new images against those that the champion was trained on."""

from typing import Annotated

import typer

from semivl.cli.common import Changes, Experiment, apply_environment, load_checked, show_table, working


def drift(
    experiment: Experiment,
    reference: Annotated[
        str | None, typer.Option(help="version of the snapshot to compare with; the champion's if left out")
    ] = None,
    current: Annotated[
        str | None, typer.Option(help="version whose new images are looked at; the current one if left out")
    ] = None,
    changes: Changes = None,
) -> None:
    """Compare new images with those that the champion was trained on. The event is the flow's to tell."""
    config = load_checked(experiment, changes)[0]
    apply_environment()
    from semivl.data.store import open_store
    from semivl.evaluation.drift import table, verdict
    from semivl.registry.drift import find_drift

    with working(f"comparing images of {config.data.dataset}"):
        found = find_drift(open_store(), config, reference, current)
    print(verdict(found))
    if found.tests:
        show_table(table(found))
        for reason in found.left_out:
            print(f"not tested: {reason}")
        print(f"sets that do not differ give an alarm in at most {found.false_alarms:.1%} of comparisons")
