"""`semivl vlm`: what a vision-language model, or a finished model, knows of your images, before it guides."""

from pathlib import Path
from typing import Annotated

import typer

from semivl.cli.common import Changes, apply_environment, as_overrides, load_checked, named_vlm, show_table, working

vlm = typer.Typer(no_args_is_help=True, help="Vision-language models.")
_VLM = "a file in conf/vlm, or a model as vlm.model names it (spoken:PATH)"


@vlm.command("eval")
def evaluate_vlm(
    name: Annotated[
        str, typer.Argument(help=f"{_VLM}; or a finished one as guidance.model does (NAME/4, NAME@champion)")
    ],
    data: Annotated[str, typer.Option(help="experiment whose evaluation images and classes are taken")],
    source: Annotated[bool, typer.Option(help="read them from the source folder, without any service")] = False,
    short_side: Annotated[int | None, typer.Option(help="resize photos to it; as they are if left out")] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="measure groups of alike patches too; a setting, as grouper=kmeans. An SCG model's own are anyway",
        ),
    ] = None,
    changes: Changes = None,
) -> None:
    """Measure what a model that is to guide knows of labelled images, and advise scale and threshold for guidance."""
    apply_environment()
    from semivl.config import GroupConfig, check
    from semivl.evaluation.groups import group_tables, measure_groups
    from semivl.evaluation.language import measure, measure_model, tables
    from semivl.evaluation.pairs import snapshot_pairs, source_pairs
    from semivl.methods.parts.recogniser import Recogniser
    from semivl.nets.grouping import group_maps
    from semivl.nets.grouping_encoder import group_encoder
    from semivl.nets.vlm import load_vlm
    from semivl.registry.guide import finished_bundle, is_finished
    from semivl.training.bundle import Predictor
    from semivl.training.guide import finished_predictor

    experiment = load_checked(data, changes)[0]
    grouping = check(GroupConfig, as_overrides(groups), "groups") if groups else None
    pairs = source_pairs if source else snapshot_pairs
    if is_finished(name):
        loaded = finished_predictor(finished_bundle(name), name, experiment.classes)
        sized = loaded.evaluation.model_copy(update={"short_side": short_side or loaded.evaluation.short_side})
        found = measure_model(loaded.logits, experiment.classes, pairs(experiment), sized)
    else:
        side = experiment.guidance.table_side or experiment.train.crop
        loaded = load_vlm(named_vlm(name), experiment.classes, side)
        found = measure(loaded, experiment.classes, pairs(experiment), short_side)
    shown, group = tables(found), None
    if grouping:
        encoder = group_encoder(grouping, loaded.encoder)
        group = lambda images: group_maps(encoder, images, grouping)  # noqa: E731
    elif isinstance(loaded, Predictor) and isinstance(loaded.model, Recogniser):
        group = loaded.model.group
    if group:
        shown |= group_tables(measure_groups(group, experiment.classes, pairs(experiment)))
    for title, rows in shown.items():
        show_table(rows, title or None)


@vlm.command("label")
def label_with_vlm(
    name: Annotated[str, typer.Argument(help=_VLM)],
    folder: Annotated[Path, typer.Argument(help="where to write KEY.png, one label map a photo")],
    data: Annotated[str, typer.Option(help="experiment whose unlabelled photos, classes and guidance are taken")],
    changes: Changes = None,
) -> None:
    """Write a guide's label maps of the dataset's unlabelled photos once, for guidance.labels."""
    apply_environment()
    from semivl.config import check
    from semivl.evaluation.labels import write_labels
    from semivl.evaluation.pairs import unlabelled_photos
    from semivl.methods.parts.guidance import GuidanceSettings
    from semivl.nets.vlm import load_vlm

    experiment = load_checked(data, changes)[0]
    settings = check(GuidanceSettings, experiment.method.settings.get("guidance", {}), "guidance")
    guide = load_vlm(named_vlm(name), experiment.classes, experiment.guidance.table_side or experiment.train.crop)
    with working(f"label maps in {folder}") as say:
        tell = lambda done: say(f"{done} photos") if done % 200 == 0 else None  # noqa: E731
        written = write_labels(guide, settings, unlabelled_photos(experiment), folder, tell)
    print(f"{written.photos} label maps; {100 * written.labelled:.1f} % of the pixels have a label")
