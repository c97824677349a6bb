"""How a model version is named on a command line."""

import re

from semivl.errors import RegistryError

_VERSION = re.compile(r"(?:models:/)?(?P<name>[^/@:]+)(?:/(?P<number>[1-9][0-9]*)|@(?P<alias>[^/@]+))")


def is_version(address: str) -> bool:
    """Whether this is NAME/NUMBER, with or without models:/ before it."""
    found = _VERSION.fullmatch(address)
    return found is not None and found["number"] is not None


def model_and_version(address: str) -> tuple[str, int | str]:
    """Name and number, or name and alias, of NAME/NUMBER or NAME@ALIAS, with or without models:/ before it.

    Raises:
        RegistryError: PRED001 the address is neither.
    """
    found = _VERSION.fullmatch(address)
    if found:
        return found["name"], int(found["number"]) if found["number"] else found["alias"]
    what = f"{address} names no model version, and no folder where one would do."
    raise RegistryError("PRED001", what, "Write NAME@champion, NAME/7 or models:/NAME/7.")
