"""Which finished model is meant: MODEL@ALIAS, MODEL/VERSION, or the folder of a bundle."""

import re
from pathlib import Path

from semivl.errors import ExportError
from semivl.registry.package import load_predictor, model_version
from semivl.training.bundle import Predictor, load_bundle


def finished(source: str) -> tuple[Predictor, str]:
    """The model on the CPU, and NAME/VERSION, or the folder's name.

    Raises:
        ExportError: EXP006, `source` is none of the three.
        RegistryError: REG004 there is no such version or alias.
        TrainingError: TRAIN004, the folder holds no model.
    """
    if Path(source).is_dir():
        return load_bundle(Path(source)), Path(source).resolve().name
    named = re.fullmatch(r"(?P<model>[^@/]+)(?:@(?P<alias>[\w.-]+)|/(?P<version>\d+))", source)
    if not named:
        what = f"{source} is neither MODEL@ALIAS nor MODEL/VERSION nor a folder."
        raise ExportError("EXP006", what, "Name a model such as semivl-photos@champion or semivl-photos/7.")
    found = model_version(named["model"], named["alias"] or int(named["version"]))
    return load_predictor(found.name, int(found.version)), f"{found.name}/{found.version}"
