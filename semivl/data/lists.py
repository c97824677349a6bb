"""The lists of a source, and the other files that the settings name."""

import difflib
from itertools import islice
from pathlib import PurePosixPath

from semivl.data.source_files import SourceFiles
from semivl.errors import DataError
from semivl.settings import ROOT

_SHIPPED = ROOT / "conf" / "splits"
_LOOKED_THROUGH = 100_000
"""files of a source among which a name is looked for that was likely meant"""


def find_file(files: SourceFiles, name: str) -> bytes:
    """A file that the settings name: in the source, else in the checkout, which has the published lists in conf/splits.

    Raises:
        DataError: DATA103 it is in neither; DATA104 it cannot be read.
    """
    try:
        if files.has(name):
            return files.read(name)
        ours = (ROOT / name).resolve()
        if ours.is_relative_to(ROOT) and ours.is_file():
            return ours.read_bytes()
    except OSError as error:
        raise DataError("DATA104", f"{name} cannot be read ({error.strerror}).", "Mend its permissions.") from None
    ending = PurePosixPath(name).suffix or ".txt"
    known = sorted(i.name for i in islice(files.names(), _LOOKED_THROUGH) if i.name.endswith(ending))
    shipped = sorted(p.relative_to(ROOT).as_posix() for p in _SHIPPED.rglob(f"*{ending}"))
    near = difflib.get_close_matches(name, known + shipped, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Such files in the source: {', '.join(known[:10]) or 'none'}."
    raise DataError("DATA103", f"there is no {name} in {files.address}, nor in {ROOT}.", hint)


def read_list(files: SourceFiles, name: str) -> list[str]:
    """The list's lines without the empty ones.

    Raises:
        DataError: DATA103 there is no such list; DATA104 it cannot be read, or names nothing.
    """
    try:
        lines = [line.strip() for line in find_file(files, name).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError("DATA104", f"{name} cannot be read ({error}).", "Save it as UTF-8 text.") from None
    if not any(lines):
        raise DataError("DATA104", f"{name} names no image.", "Write one image name a line.")
    return [line for line in lines if line]
