"""Listing: what a plan asks of a whole source, at the least cost that each kind of source has for it.

A disk gives names for next to nothing, and size and time for a question a file: it is asked about those that are
samples alone. S3 and tars tell all of it in one listing.
"""

from collections.abc import Collection, Iterable

from semivl.data.disk import FileInfo
from semivl.data.source_files import LocalFiles, SourceFiles


def names_in(files: SourceFiles, folder: str = "") -> Iterable[str]:
    """Names of all files below the folder, sorted.

    Raises:
        DataError, StoreError: what `files.names` raises.
    """
    return files.paths(folder) if isinstance(files, LocalFiles) else (info.name for info in files.names(folder))


def infos_of(files: SourceFiles, names: Collection[str]) -> dict[str, FileInfo]:
    """By name, what is known of those files that are there; maybe of others, too."""
    if isinstance(files, LocalFiles):
        return {info.name: info for info in files.infos(names)}
    return {info.name: info for info in files.names()}
