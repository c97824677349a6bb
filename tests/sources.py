"""Sources for the tests of layouts: files written to a folder, and the same files below an S3 prefix."""

import io
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from semivl.config import DataConfig
from semivl.data.layouts import list_sources
from semivl.data.source_files import FileInfo
from semivl.data.store import Store
from semivl.errors import DataError
from semivl.settings import Settings

Place = Callable[[Path], Path | str]
"""gives the source's address, as the settings name it, of what lies in a folder"""


def place(request: pytest.FixtureRequest) -> Place:
    """For a fixture with the parameters "folder" and "s3". On S3 the bucket is not the project's, and others' files
    lie around the source's."""
    if request.param == "folder":
        return lambda folder: folder
    s3, new_store = request.getfixturevalue("s3"), request.getfixturevalue("new_store")
    store = _stores.get(s3) or _stores.setdefault(s3, new_store())

    def uploaded(folder: Path) -> str:
        prefix = f"sources {uuid.uuid4().hex}"
        store.put(f"{prefix} of others.jpg", b"not of this source")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                store.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{store.bucket}/{prefix}/"

    return uploaded


_stores: dict[Settings, Store] = {}


def config(source: Path | str, layout: str = "folder", **fields) -> DataConfig:
    return DataConfig(dataset="d", source=source, layout=layout, **fields)  # pyright: ignore[reportArgumentType]


def listed(source: Path | str, **fields) -> dict[str, tuple[str | None, str | None]]:
    """Split and mask of every image; seen to be sorted, and each image to stand once."""
    found = list_sources(config(source, **fields))
    assert [s.image.as_posix() for s in found] == sorted({s.image.as_posix() for s in found})
    return {s.image.as_posix(): (s.split, s.mask.as_posix() if s.mask else None) for s in found}


def refused(source: Path | str, **fields) -> DataError:
    with pytest.raises(DataError) as raised:
        list_sources(config(source, **fields))
    return raised.value


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    """Files of that content below the folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def tar_of(members: dict[str, bytes | str], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, content in members.items():
            body = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return file.getvalue()


class Memory:
    """Files that are nowhere but in this dictionary."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = dict(sorted(contents.items()))
        self.reads: list[tuple[str, int, int]] = []

    @property
    def address(self) -> str:
        return "memory"

    def names(self, folder: str = "") -> Iterator[FileInfo]:
        start = f"{folder}/" if folder else ""
        return (FileInfo(n, len(c), str(hash(c))) for n, c in self.contents.items() if n.startswith(start))

    def has(self, name: str) -> bool:
        return name in self.contents

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        found = self.contents[name][start:][:length]
        self.reads.append((name, start, len(found)))
        return found
