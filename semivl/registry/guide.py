"""The finished model that guides a training, found in the registry: `guidance.model`."""

from pathlib import Path

from semivl.config import Config
from semivl.registry.address import is_version, model_and_version
from semivl.registry.package import bundle_of, model_version
from semivl.settings import ROOT


def with_numbered_guide(config: Config) -> Config:
    """The experiment with the guide's version as a number, so that a moved alias means another training.

    Raises:
        RegistryError: PRED001 the address is none, REG004 there is no such version.
    """
    address = config.guidance.model
    if address is None or (ROOT / address).is_dir():
        return config
    name, version = model_and_version(address)
    numbered = f"{name}/{model_version(name, version).version}"
    guidance = config.guidance.model_copy(update={"model": numbered})
    return config.model_copy(update={"guidance": guidance})


def guide_bundle(config: Config) -> Path | None:
    """The folder with the guide's bundle on this machine; None where no finished model guides."""
    address = config.guidance.model
    return None if address is None else finished_bundle(address)


def finished_bundle(address: str) -> Path:
    """The folder with the bundle of a finished model: the one that is named, or that of a registered version.

    Raises:
        RegistryError: PRED001 the address is none, REG004 there is no such version.
    """
    if (ROOT / address).is_dir():
        return ROOT / address
    name, version = model_and_version(address)
    return bundle_of(name, int(model_version(name, version).version))


def is_finished(address: str) -> bool:
    """Whether this names a finished model, not a vision-language model."""
    named = address.startswith("models:/") or "@" in address or is_version(address)
    return named or (ROOT / address).is_dir()
