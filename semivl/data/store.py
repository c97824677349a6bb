"""The object store: the one door to S3, for every record that passes between the stages.

What may be written once is written with If-None-Match, what moves is moved with If-Match: S3 itself decides
who was first, so any number of writers may run at once. A Store may be pickled and may cross a fork: every
process makes its own client.

Connections break, servers stumble and bits flip. What may pass is tried again until `s3_patience` seconds went by
without progress: a request that failed, and a body that broke off, which goes on where it stopped. Every put carries
a checksum that S3 compares with what arrives, and the SHA-256 as metadata, which every get of a whole object compares
with what it got. Not compared are parts of objects, objects that others put, and listings, for which S3 has no
checksum: what reads those compares by itself, or uses https.
"""

import io
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from semivl.data.store_errors import RequestError, absent
from semivl.data.store_requests import MOVES, Requests
from semivl.data.transfer import Incoming, Outgoing, kept_part
from semivl.errors import StoreError
from semivl.settings import Settings, settings

_LOOKED_FOR = 4 << 20
"""bytes of a body from which on it pays to look whether the object is there before all of it is sent"""
_MOST_MOVES = 64
"""that an object remembers, of the 2 KB that S3 gives to metadata"""


@dataclass(frozen=True)
class Listed:
    """An object in a listing."""

    key: str
    size: int
    etag: str
    modified: datetime


class Store(Requests):
    """A bucket. Every method raises StoreError: STORE001 not reachable, STORE002 credentials refused,
    STORE003 no such object, STORE004 no such bucket, STORE005 the server refused for another reason,
    STORE006 the server keeps failing, STORE007 an object is damaged."""

    def of(self, bucket: str) -> "Store":
        """Another bucket of the same S3, whether it is there or not."""
        other = Store(self.settings.model_copy(update={"s3_bucket": bucket}))
        other._clients = self._clients
        return other

    def address(self, key: str) -> str:
        return str(self._place(key))

    def link(self, page: str) -> str:
        """An address that a browser opens an HTML object with, signed for a week, S3's longest."""
        asked = {"Bucket": self.bucket, "Key": page, "ResponseContentType": "text/html"}
        return self.client.generate_presigned_url("get_object", Params=asked, ExpiresIn=7 * 24 * 3600)

    def ensure_bucket(self) -> None:
        """Makes the bucket where it is not there."""
        if self._has_bucket():
            return
        region = self.settings.s3_region
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._ask("create_bucket", "", **place)
        except StoreError:  # somebody else may have made it, or we have and never heard
            if not self._has_bucket():
                raise

    def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
        """The object's bytes, or `length` of them from `start`, which nothing is compared with."""
        file, first = io.BytesIO(), start or 0
        if length == 0:
            return b""
        if start is None and length is None:
            self._read_whole(Incoming(file, self._place(key)))
        else:
            self._read(Incoming(file, self._place(key), first), None if length is None else first + length - 1)
        return file.getvalue()

    def get_with_etag(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and its ETag, for `put_if_match`; None where there is no such object."""
        file = io.BytesIO()
        incoming = Incoming(file, self._place(key))
        try:
            self._read_whole(incoming)
        except StoreError as error:
            if error.code != "STORE003":
                raise
            return None
        assert incoming.version
        return file.getvalue(), incoming.version.etag

    def download(self, key: str, path: Path) -> str:
        """The object as a file, which appears whole or not at all; its SHA-256.

        What has come lies in a `.part` file beside it, which the next call continues, of this process or another,
        where the object is still the same. Nothing is flushed to the disk: after a loss of power the file may be
        damaged, so who keeps it compares its hash.
        """
        place = self._place(key)
        while True:
            version = self._version(key)
            if version is None:
                raise absent(place)
            with kept_part(path, version.etag) as (file, part):
                incoming = Incoming(file, place, version=version)
                try:
                    sha256 = self._read_whole(incoming) or incoming.sha256()
                except RequestError:  # the object was replaced meanwhile
                    incoming.restart()
                    continue
                part.replace(path)
                return sha256

    def put(self, key: str, body: bytes | Path) -> None:
        """Writes the object, over one of that name where there is one; STORE009 where it is above 5 GiB."""
        outgoing = Outgoing(body, self._place(key))
        self._persist(lambda: self._put(key, outgoing, {}, ()))

    def put_if_absent(self, key: str, body: bytes | Path, sha256: str | None = None) -> bool:
        """Writes the object unless one of that name is there; says whether it did, as `put_if_match`.

        `sha256`: the body's, where it is known.
        """
        return self._put_if(key, body, None, sha256)

    def put_if_match(self, key: str, body: bytes | Path, etag: str | None) -> bool:
        """Writes the object if it still has that ETag (None: is still absent); says whether it did.

        True: these bytes were the object's, if only for a moment; False: they never were. That holds when S3's answer
        is lost, too, after which a second try may find its own bytes in its way. Equal bytes do not tell whose they
        are, since two writers may write the same; so every call has a token, and an object carries the tokens of the
        moves that led to it. After any failure the object is read: it has our token where we won, even if others have
        moved it on since (64 times at most, then a win may pass for a loss); else it has another ETag where we lost;
        else nothing has happened yet, and the next try is as good as the first. A request that was given up may
        still arrive late: its condition holds for one of the tries alone, as no try is made over its own win.

        An ETag is a hash of the bytes: bytes that come back bring it back, and the condition holds again. What must
        tell one state from an earlier one needs something in its bytes that does not come back.
        """
        return self._put_if(key, body, etag)

    def exists(self, key: str) -> bool:
        return self._version(key) is not None

    def size(self, key: str) -> int | None:
        """Bytes of the object; None where there is none."""
        version = self._version(key)
        return None if version is None else version.size

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with `prefix`, in S3's order."""
        return (item.key for item in self.listed(prefix))

    def listed(self, prefix: str) -> Iterator[Listed]:
        """The objects whose keys begin with `prefix`, in S3's order, asked for in pages of a thousand."""
        begin = {}
        while True:
            page = self._ask("list_objects_v2", prefix, Prefix=prefix, **begin)
            for item in page.get("Contents", ()):
                yield Listed(item["Key"], item["Size"], item["ETag"], item["LastModified"])
            if not page["IsTruncated"]:
                return
            begin = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Removes the object; none of that name is as well."""
        self._ask("delete_object", key, Key=key)

    def _has_bucket(self) -> bool:
        try:
            self._ask("head_bucket", "")
        except StoreError as error:
            if error.code != "STORE004":
                raise
            return False
        return True

    def _put_if(self, key: str, body: bytes | Path, etag: str | None, sha256: str | None = None) -> bool:
        outgoing, token, patience = Outgoing(body, self._place(key), sha256), uuid.uuid4().hex[:16], self._patience()
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        known = etag is None and outgoing.size < _LOOKED_FOR  # else a look saves the upload, or tells the moves
        found, fault = None if known else self._version(key), None
        while True:
            moves = found.metadata.get(MOVES, "").split(",") if found else ()
            if token in moves:
                return True
            if (found.etag if found else None) != etag:
                return False
            if fault:
                patience.bear(fault)
            try:
                return self._put(key, outgoing, condition, (*filter(None, moves[1 - _MOST_MOVES :]), token))
            except RequestError as error:
                fault = error
            found = self._version(key)


def open_store() -> Store:
    """The store that the settings name, seen to answer; its bucket is made where it is not there."""
    return _opened(settings())  # pyright: ignore[reportArgumentType]  (frozen models can be hashed)


@lru_cache(maxsize=4)
def _opened(chosen: Settings) -> Store:
    store = Store(chosen)
    store.ensure_bucket()
    return store
