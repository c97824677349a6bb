"""Names: the paths of a source's files, before any is read. What one system takes and another loses is told here.

A name is only where a sample came from (its key is the hash of its bytes), so dots, spaces and any script do no harm
and pass, also names that are no UTF-8. Two names that differ by case or by Unicode form alone are one file on many
systems: the first by name stays, and the others are left out until they are renamed.
"""

import re
import unicodedata
from collections.abc import Iterable

from semivl.data.checks import Quarantined

_LONGEST_PART, _LONGEST = 255, 1024
"""bytes that a file's name has on common file systems, and a whole key on S3"""
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_. -]*/)*[A-Za-z0-9_-][A-Za-z0-9_. -]*")
"""names that no check finds anything wrong with, as nearly all are"""
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
"""control characters, breaks of lines, and marks that turn the direction of what follows"""


def name_faults(names: Iterable[str]) -> dict[str, Quarantined]:
    """The names that are left out, sorted, each with the first of its faults; the same whatever the order given.

    DATA013 leads out of the source, DATA020 no plain path, DATA021 too long, DATA022 another one in Unicode's
    composed form, DATA023 another one but for upper and lower case.
    """
    faults: dict[str, Quarantined] = {}
    kept: dict[str, str] = {}
    for name in sorted(set(names)):
        fault = _fault(name) or _collision(name, kept)
        if fault:
            faults[name] = Quarantined(_told(name), *fault)
    return faults


def _fault(name: str) -> tuple[str, str] | None:
    """Code and reason of what is wrong with a name by itself."""
    if len(name) * 4 <= _LONGEST_PART and _PLAIN.fullmatch(name):
        return None
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:[/\\]", name):
        return "DATA013", "the path leads out of the source folder"
    if not name.isprintable() and _UNSEEN.search(name):
        return "DATA020", "the name holds control characters or marks that turn the direction of writing"
    if "." in parts or "" in parts:
        return "DATA020", "the path has an empty part or a single dot"
    if len(name) * 4 > _LONGEST_PART:
        if len(_bytes(name)) > _LONGEST:
            return "DATA021", f"the path has {len(_bytes(name))} bytes, more than {_LONGEST}"
        longest = max(len(_bytes(part)) for part in parts)
        if longest > _LONGEST_PART:
            return "DATA021", f"a part of the path has {longest} bytes, more than {_LONGEST_PART}"
    return None


def _collision(name: str, kept: dict[str, str]) -> tuple[str, str] | None:
    """Code and reason where a kept name is the same to many systems; else the name is kept."""
    normal = _composed(name)
    other = kept.setdefault(normal.lower(), name)
    if other == name:
        return None
    if _composed(other) == normal:
        return "DATA022", f"{_told(other)} is the same name, composed of other characters"
    return "DATA023", f"{_told(other)} is the same name but for upper and lower case"


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _told(name: str) -> str:
    """The name with what cannot be seen or written escaped."""
    visible = _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), name)
    return visible.encode(errors="backslashreplace").decode()
