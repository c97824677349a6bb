"""`semivl label-next`: the images whose masks would help a model most, ready for annotators.

    index.html               the gallery: what was chosen and why
    choice.csv               the same as a table
    label-studio/            tasks.json with pre-annotations, interface.xml
    cvat/                    images.zip, labels.json, annotations.xml

The same experiment, snapshot, model, number and seed give the same bytes.
"""

from collections.abc import Iterator
from pathlib import Path

from semivl.config import Config
from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_image
from semivl.data.mask_ids import background
from semivl.data.snapshot import read
from semivl.data.store import open_store
from semivl.errors import LabelError
from semivl.registry.address import model_and_version
from semivl.registry.package import load_predictor, model_version
from semivl.registry.promotion import CHAMPION
from semivl.serving.label_choice import choose
from semivl.serving.label_files import Picked, require_ours, whole, write
from semivl.serving.label_page import Head
from semivl.serving.label_pool import MOST, Progress, gather
from semivl.serving.label_scoring import said
from semivl.settings import home
from semivl.training.trainer import chosen_device


def label_next(
    config: Config,
    count: int,
    output: Path,
    model: str | None = None,
    seed: int = 0,
    most: int = MOST,
    progress: Progress = lambda done, all: None,
) -> Head:
    """Writes the choice of `count` images to the folder `output`; what stands at the head of its page.

    Args:
        model: NAME@ALIAS or NAME/VERSION; the experiment's champion where None.
        most: images that are scored, of the unlabelled and of the labelled ones each.

    Raises:
        LabelError: LABEL001 nothing is unlabelled, LABEL002 the folder holds something else, LABEL003 and LABEL011
            the model cannot be used.
        RegistryError: REG004 there is no such model.
        DataError: DATA201 there is no snapshot yet.
    """
    require_ours(output)
    store = open_store()
    snapshot = read(store, config.data.dataset)
    cache = ShardCache(store, config.data.dataset, home() / "cache" / "shards", config.compute.cache_bytes)
    name, version = model_and_version(model or f"{config.registered_model}@{CHAMPION}")
    found = model_version(name, version)
    predictor = load_predictor(name, int(found.version), str(chosen_device(config.compute)))
    if predictor.classes.names != snapshot.manifest.classes.names:
        what = f"model {name} {found.version} knows other classes than {config.data.dataset}."
        raise LabelError("LABEL011", what, "Choose with a model that was trained on this dataset: --model NAME.")
    folder = home() / "cache" / "label-next" / name / f"{found.version}-{found.creation_timestamp}"
    pool = gather(predictor, snapshot, cache, folder, seed, most, progress)
    choice = choose(count, pool.images, pool.uncertainty, pool.labelled, seed)
    head = Head(
        dataset=config.data.dataset, snapshot=snapshot.manifest.version, model=f"{name} {found.version}", seed=seed,
        asked=count, chosen=len(choice.chosen), scored=len(pool.rows), unlabelled=pool.unlabelled,
        near_labelled=choice.near_labelled, near_chosen=choice.near_chosen,
        classes=snapshot.manifest.classes.names,
    )  # fmt: skip

    def picked() -> Iterator[Picked]:
        for one in choice.chosen:
            row = pool.rows[one.place]
            image = read_sample(cache, row)[0]
            photo = decode_image(image)
            nearest = None if one.nearest is None else pool.labelled_rows[one.nearest].source
            unsure = float(pool.uncertainty[one.place])
            yield Picked(row, image, photo, said(predictor, photo).mask, unsure, one.distance, nearest)

    with whole(output) as unfinished:
        write(unfinished, head, picked(), background(snapshot.manifest.classes))
    return head
