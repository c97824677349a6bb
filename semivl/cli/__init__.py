"""The `semivl` command: a thin door to the services and to the flows, which it starts through their deployments.

Everything heavy is imported inside the commands, so that `semivl --help` answers at once.
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from semivl.cli.advise import advise
from semivl.cli.common import (
    Changes,
    Experiment,
    apply_environment,
    as_overrides,
    load_checked,
    named_vlm,
    show_table,
    working,
)
from semivl.cli.data import data, forget, gc
from semivl.cli.drift import drift
from semivl.cli.export import export
from semivl.cli.label import import_labels, label_next
from semivl.cli.lineage import lineage, reproduce
from semivl.cli.predict import predict
from semivl.cli.registry import decisions, freeze, rollback
from semivl.cli.retrain import retrain, schedule
from semivl.cli.transferability import transferability
from semivl.cli.vlm import vlm
from semivl.errors import SemivlError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="From a bucket of images, few of them with masks, to a segmentation model that is promoted only when better.",
)
app.add_typer(vlm, name="vlm")
app.add_typer(data, name="data")
app.command()(forget)
app.command()(gc)
app.command()(drift)
app.command()(lineage)
app.command()(predict)
app.command()(reproduce)
app.command()(retrain)
app.command()(schedule)
app.command()(advise)
app.command()(transferability)
app.command()(export)
for command in (decisions, freeze, rollback):
    app.command()(command)
app.command()(label_next)
app.command()(import_labels)
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

    supervisor.up()
    show_services()


@app.command()
def down() -> None:
    """Stop the embedded services. Their data stays."""
    from semivl.services import supervisor

    supervisor.down()


@app.command()
def status() -> None:
    """Show what runs where, and the current snapshot, run and champion of every dataset."""
    apply_environment()
    from semivl.services.overview import datasets

    show_services()
    show_table(datasets(), "datasets")


@app.command()
def doctor() -> None:
    """Look for what could keep semivl from working here."""
    from semivl.services.doctor import doctor as look

    checks = look()
    show_table([{"": c.level, "check": c.name, "found": c.found, "remedy": c.remedy} for c in checks])
    if not all(c.ok for c in checks):
        raise typer.Exit(1)


@app.command()
def run(experiment: Experiment, changes: Changes = None) -> None:
    """Ingest, validate, train, evaluate and promote: one turn of the loop, run by a worker."""
    apply_environment()
    show_outcomes([turn(experiment, changes)])


@app.command()
def show(experiment: Experiment, changes: Changes = None) -> None:
    """Print the experiment as it would run: every setting resolved, then modules, text, losses and expected memory."""
    import yaml

    config = load_checked(experiment, changes)[0]
    print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="", flush=True)
    from semivl.training.summary import as_comment, summary

    print(as_comment(summary(config)))


@app.command()
def scenes(
    folder: Annotated[Path | None, typer.Argument(help="where to; the demo's folder if left out")] = None,
    labelled: Annotated[int, typer.Option(help="training images with a mask")] = 16,
    unlabelled: Annotated[int, typer.Option(help="training images without")] = 600,
    evaluation: Annotated[int, typer.Option(help="evaluation images, all with a mask")] = 120,
    size: Annotated[int, typer.Option(help="side in pixels")] = 128,
    seed: Annotated[int, typer.Option(help="another seed gives other scenes")] = 0,
    mentioned: Annotated[
        float, typer.Option(help="share of the visible objects that captions name", min=0, max=1)
    ] = 0.85,
    tags: Annotated[
        str, typer.Option(help="of training images: none, some (positive-only) or all (complete)")
    ] = "none",
    masked: Annotated[
        list[str] | None, typer.Option(help="class that training masks show, several times for several; 255 elsewhere")
    ] = None,
) -> None:
    """Make the demo's photograph-like scenes; those that are there already stay."""
    from semivl.config import check
    from semivl.data.scenes import Told, write_scenes

    folder = folder or demo_folder()
    said = {"mentioned": mentioned, "tags": tags} | ({"masked": masked} if masked else {})
    told = check(Told, said, "semivl scenes")
    with working(f"making {labelled + unlabelled + evaluation} scenes in {folder}"):
        write_scenes(folder, seed, labelled, unlabelled, evaluation, size, told)


@app.command()
def pretrain(
    folder: Annotated[Path, typer.Argument(help="images/ and captions.jsonl")],
    output: Annotated[Path, typer.Option(help="folder for the model")],
    config: Annotated[Path | None, typer.Option(help="an open_clip_config.json: trains all of it")] = None,
    start: Annotated[Path | None, typer.Option(help="with --config: an earlier result to go on from")] = None,
    image_encoder: Annotated[
        str | None, typer.Option(help="align this one instead: a file in conf/vlm, or a model as vlm.model names it")
    ] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="with this: a sentence encoder's folder, or a model with text")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="or with what this model says of the images, which then need no captions")
    ] = None,
    changes: Changes = None,
) -> None:
    """Train a small CLIP on captioned images (--config), align two encoders, or distil one model into another."""
    from semivl.config import check
    from semivl.errors import ConfigError
    from semivl.training.alignment import AlignSettings, align, text_source
    from semivl.training.distillation import distill
    from semivl.training.pretrain import PretrainSettings
    from semivl.training.pretrain import pretrain as train

    def tell(step: int, values: dict[str, float]) -> None:
        if step % 20 == 0 or step == settings.steps:
            told = ", ".join(f"{k} {v:.4g}" for k, v in values.items())
            print(f"step {step} of {settings.steps}: {told}", flush=True)

    if image_encoder and teacher and not (config or text_encoder):
        settings = check(AlignSettings, as_overrides(changes), "pretrain")
        print(distill(folder, named_vlm(image_encoder), named_vlm(teacher), output, settings, tell))
        return
    if image_encoder and text_encoder and not (config or teacher):
        settings = check(AlignSettings, as_overrides(changes), "pretrain")
        print(align(folder, named_vlm(image_encoder), text_source(text_encoder), output, settings, tell))
        return
    if image_encoder or text_encoder or teacher or not config:
        what = "semivl pretrain takes --config, or --image-encoder with --text-encoder or --teacher."
        raise ConfigError("CONF023", what, "See semivl pretrain --help.")
    settings = check(PretrainSettings, as_overrides(changes), "pretrain")
    print(train(folder, config, output, settings, tell, start))


@app.command()
def demo() -> None:
    """Start the services, make scenes, run the baseline and SemiVL through the loop, and compare them."""
    from semivl.services import supervisor

    supervisor.up()
    apply_environment()
    scenes()
    show_outcomes([turn(experiment, None) for experiment in DEMO])


def turn(experiment: str, changes: list[str] | None, deployment: str | None = None) -> dict[str, Any]:
    """One run of the deployment, the pipeline's if none is named, followed to its end; its outcome and last words.

    Raises:
        ConfigError: the experiment cannot be used.
        ServiceError: Prefect does not answer, or does not know the deployment.
    """
    _, overrides = load_checked(experiment, changes)
    from semivl.services import runs

    parameters = {"experiment": experiment} | ({"overrides": overrides} if overrides else {})
    started = runs.start(deployment or runs.PIPELINE, parameters)
    print(f"{experiment}: {runs.page(started)}", flush=True)
    try:
        with working(experiment) as say:
            ended = runs.follow(started, say)
    except KeyboardInterrupt:
        print(f"\nThe run goes on. To end it: prefect flow-run cancel {started}", file=sys.stderr)
        raise typer.Exit(130) from None
    if not ended.completed:
        print(f"error: {ended.message or ended.state}", file=sys.stderr)
        raise typer.Exit(2 if re.match(r"[A-Z]+\d{3} ", ended.message) else 1)
    return runs.outcome(started) | {"run": runs.page(started), "message": ended.message}


def demo_folder() -> Path:
    """Where the demo's scenes lie: the source of the experiment."""
    from semivl.config import load
    from semivl.data.source_files import source_folder

    return source_folder(load(DEMO[-1]).data)


def show_services() -> None:
    """The services' states as a table."""
    from semivl.services import supervisor

    rows = [
        {"service": s.name, "state": s.state, "address": s.address, "process": s.pid or "", "log": s.log}
        for s in supervisor.status()
    ]
    show_table(rows)


def show_outcomes(rows: list[dict[str, Any]]) -> None:
    """The runs' outcomes side by side, and where to look further."""
    from semivl.services import runs

    shown = ("experiment", "method", "labelled masks", "mIoU", "gate")
    show_table([{name: row.get(name, "") for name in shown} for row in rows])
    for row in rows:
        print(f"\n{row.get('experiment', '')}, {row.get('gate', '')}: {row.get('reason', '')}")
    print(f"\nmodel   {rows[-1].get('model page', '')}")
    print(f"runs    {runs.runs_page()}")
    print(f"report  {rows[-1].get('report', '')}")
