"""HEAD: the one object of a dataset that moves, only ever from where it was seen.

Whatever must not happen behind a commit's back passes through it: which version is current, which samples were
forgotten, and what `semivl gc` is about to remove. A commit that read HEAD before one of these changed cannot move
it any more, reads again, and finds the change.
"""

import json

from semivl.config import Record
from semivl.data.store import Store


class Head(Record):
    """What HEAD says."""

    version: str
    forgotten: tuple[str, ...] = ()
    """keys of the samples that `semivl forget` removed for good, sorted; nothing of their content"""
    removing: tuple[str, ...] = ()
    """versions and shards that a `semivl gc` is removing: no commit may name one of them"""
    collections: int = 0
    """how often that was so: S3's ETag is a hash of the content, and HEAD must not look as if nothing had been"""


def read_head(store: Store, dataset: str) -> tuple[Head | None, str | None]:
    """HEAD and its ETag; nothing twice before the first commit."""
    found = store.get_with_etag(_key(dataset))
    return (Head.model_validate_json(found[0]), found[1]) if found else (None, None)


def move_head(store: Store, dataset: str, head: Head, etag: str | None) -> bool:
    """Moves HEAD if it still has that ETag (None: is still absent); says whether it did."""
    body = json.dumps(head.model_dump(mode="json", exclude_defaults=True)).encode()
    return store.put_if_match(_key(dataset), body, etag)


def _key(dataset: str) -> str:
    return f"datasets/{dataset}/HEAD"
