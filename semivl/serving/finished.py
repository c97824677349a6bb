"""The finished model that is meant: a version in the registry, or a bundle's folder, which needs no service."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from semivl.errors import RegistryError, TrainingError
from semivl.training.bundle import CARD, WEIGHTS, Predictor, is_whole, load_bundle


class Model(NamedTuple):
    """A model with what identifies it."""

    predictor: Predictor
    name: str
    version: int | None
    """None of a bundle's folder"""
    weights: str
    """SHA-256 over its weights and its card"""

    @property
    def named(self) -> str:
        """NAME/VERSION, or the folder's name."""
        return self.name if self.version is None else f"{self.name}/{self.version}"


def load_model(address: str, device: str = "cpu") -> Model:
    """The model of NAME@ALIAS, NAME/NUMBER (also as models:/...), or of a bundle's folder, which goes first.

    Raises:
        RegistryError: PRED001 the address is none of these, PRED002 the model's files are damaged, REG001 MLflow does
            not answer, REG004 there is no such version.
        TrainingError: TRAIN004 a folder that holds no model.
    """
    folder = Path(address).expanduser()
    if folder.is_dir():
        return _loaded(folder, folder.resolve().name, None, device)
    from semivl.registry.address import model_and_version
    from semivl.registry.package import fetch_bundle, model_version

    version = model_version(*model_and_version(address))
    return _loaded(fetch_bundle(version), version.name, int(version.version), device)


def _loaded(folder: Path, name: str, version: int | None, device: str) -> Model:
    try:
        predictor = load_bundle(folder, device)
    except TrainingError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:  # json, pydantic and torch; safetensors' own below
        raise _damaged(folder, error) from None
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise _damaged(folder, error) from None
    return Model(predictor, name, version, _digest(folder) if is_whole(folder) else "")


def _damaged(folder: Path, error: Exception) -> RegistryError:
    why = " ".join(str(error).split())[:300]
    return RegistryError(
        "PRED002", f"the model in {folder} cannot be loaded: {why}.", "Copy it again from where it came from."
    )


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CARD, WEIGHTS):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
