"""`semivl advise`: which method suits a dataset, by what its snapshot's index says."""

from typing import Annotated

import typer

from semivl.cli.common import Changes, Experiment, apply_environment, load_checked, show_table


def advise(
    experiment: Experiment,
    snapshot: Annotated[str | None, typer.Option(help="version; the current one where left out")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="all of it, as JSON")] = False,
    changes: Changes = None,
) -> None:
    """Recommend a method and its settings for the experiment's dataset, with the reason."""
    apply_environment()
    from semivl.data.snapshot import read
    from semivl.data.store import open_store
    from semivl.training.advice import advised, experiment_of, known

    config = load_checked(experiment, changes)[0]
    found = read(open_store(), config.data.dataset, snapshot)
    advice = advised(known(found), config.registered_model)
    if as_json:
        print(advice.model_dump_json(indent=1))
        return
    k = advice.known
    print(
        f"{config.data.dataset}@{found.manifest.version}: {k.train:,} training photos, {k.masked:,} with a mask, "
        f"{k.tagged:,} with tags in its place ({k.complete:,} complete), {k.captioned:,} with a caption."
    )
    show_table([c.model_dump() for c in k.classes])
    for number, step in enumerate(advice.steps, 1):
        name, content = experiment_of(step, config.name)
        print(f"\n{number}. {step.method}: {step.why}\n   {name}:")
        print("\n".join(f"      {line}" for line in content.splitlines()))
    for caution in advice.cautions:
        print(f"\nNote: {caution}")
