"""`semivl retrain` and `semivl schedule`: a retraining now, and from now on."""

from typing import Annotated

import typer

from semivl.cli.common import Changes, Experiment, apply_environment, load_checked


def retrain(experiment: Experiment, changes: Changes = None) -> None:
    """Look for new images, and train, evaluate and promote where there are enough of them."""
    apply_environment()
    from semivl.cli import show_outcomes, turn
    from semivl.services import schedules

    own = schedules.is_scheduled(experiment)  # it waits in line with the scheduled runs
    outcome = turn(experiment, changes, schedules.deployment_of(experiment) if own else schedules.LOCAL)
    if "experiment" in outcome:
        show_outcomes([outcome])
    else:
        print(outcome["message"])


def schedule(
    experiment: Experiment,
    every: Annotated[str | None, typer.Option(help="interval such as 30m, 6h or 1d")] = None,
    cron: Annotated[str | None, typer.Option(help="five fields, UTC: '0 3 * * *'")] = None,
    off: Annotated[bool, typer.Option("--off", help="no runs on a schedule or an event any more")] = False,
    pool: Annotated[str | None, typer.Option(help="Prefect's work pool; that of the flow if left out")] = None,
    changes: Changes = None,
) -> None:
    """Retrain on a schedule, and when a snapshot is committed or drift is found. retrain.schedule if none is given."""
    from semivl.errors import ConfigError

    if sum((every is not None, cron is not None, off)) > 1:
        raise ConfigError("CONF030", "--every, --cron and --off exclude each other.", "Give one of them.")
    given = every if every is not None else cron
    chosen = [*(changes or ()), *([f"retrain.schedule={given}"] if given is not None else [])]
    config, overrides = load_checked(experiment, chosen)
    apply_environment()
    from semivl.services import schedules

    if off:
        found = schedules.unschedule(experiment)
        print(f"{experiment} is no longer on a schedule." if found else f"{experiment} was on no schedule.")
        return
    if not config.retrain.schedule:
        what = f"experiment {experiment} has no retrain.schedule, and none was given."
        raise ConfigError("CONF030", what, "Give --every 6h or --cron '0 3 * * *', or set retrain.schedule.")
    schedules.schedule(config, overrides, pool)
    place = schedules.deployment_of(experiment)
    print(f"{experiment} is looked at {_in_words(config.retrain.schedule)}, by the deployment {place}")


def _in_words(schedule: str) -> str:
    from semivl.config import interval_of

    return f"every {schedule}" if interval_of(schedule) else f"at `{schedule}` (UTC)"
