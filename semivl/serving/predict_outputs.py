"""Where predictions go: a folder, or a prefix in the configured bucket. Every file appears whole or not at all."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from semivl.data.bounds import require_allowed
from semivl.data.store import Store, open_store
from semivl.errors import DataError, StoreError


class Outputs(Protocol):
    """Files by their names, which are POSIX paths."""

    @property
    def address(self) -> str: ...

    def names(self, folder: str = "") -> Iterator[str]:
        """All files below the folder."""
        ...

    def get(self, name: str) -> bytes | None: ...

    def put(self, name: str, body: bytes) -> None: ...

    def delete(self, name: str) -> None: ...


def open_outputs(output: str, source: str) -> Outputs:
    """The output of that address, which must not lie in the source, nor the source in it.

    Raises:
        DataError: PRED004 another bucket or none of its prefixes, PRED005 source and output overlap, DATA124 it lies
            where none may.
    """
    if output.startswith("s3://"):
        store = open_store()
        bucket, _, prefix = output.removeprefix("s3://").partition("/")
        if bucket != store.bucket or not prefix.strip("/"):
            raise DataError(
                "PRED004",
                f"predictions cannot be put to {output}.",
                f"Name a folder, or a prefix in the configured bucket: s3://{store.bucket}/PREFIX.",
            )
        outputs: Outputs = S3Outputs(store, f"{prefix.strip('/')}/")
    else:
        require_allowed(Path(output).expanduser().resolve())
        outputs = LocalOutputs(Path(output).expanduser().resolve())
    one, other = f"{outputs.address}/", f"{source}/"
    if one.startswith(other) or other.startswith(one):
        raise DataError(
            "PRED005",
            f"the predictions would go to {outputs.address}, and the photos lie in {source}.",
            "Give an output that does not hold the source, nor lies in it.",
        )
    return outputs


@dataclass(frozen=True)
class LocalOutputs:
    root: Path

    @property
    def address(self) -> str:
        return str(self.root)

    def names(self, folder: str = "") -> Iterator[str]:
        if self.root.exists() and not self.root.is_dir():
            raise _refused(self.root, "it is a file")
        for place, _, files in os.walk(self.root / folder):
            for file in files:
                name = os.path.relpath(f"{place}/{file}", self.root)
                if not name.endswith(".part"):  # what a kill left half-written
                    yield name

    def get(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, name: str, body: bytes) -> None:
        path = self.root / name
        partial = path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(body)
            partial.replace(path)
        except OSError as error:
            raise _refused(path, error.strerror or str(error)) from None

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class S3Outputs:
    store: Store
    prefix: str

    @property
    def address(self) -> str:
        return self.store.address(self.prefix).rstrip("/")

    def names(self, folder: str = "") -> Iterator[str]:
        return (key.removeprefix(self.prefix) for key in self.store.list(f"{self.prefix}{folder}"))

    def get(self, name: str) -> bytes | None:
        try:
            return self.store.get(self.prefix + name)
        except StoreError as error:
            if error.code != "STORE003":
                raise
            return None

    def put(self, name: str, body: bytes) -> None:
        self.store.put(self.prefix + name, body)

    def delete(self, name: str) -> None:
        self.store.delete(self.prefix + name)


def _refused(path: Path, why: str) -> DataError:
    return DataError("PRED006", f"{path} cannot be written: {why}.", "Name another folder, or make room.")
