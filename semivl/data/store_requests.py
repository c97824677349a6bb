"""Requests to S3 that get through: what may pass is tried again, and what arrives is compared with what was sent."""

import mimetypes
import os
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from semivl.data.store_client import make_client
from semivl.data.store_errors import Place, RequestError, damaged, faults, misarrived
from semivl.data.transfer import Incoming, Outgoing, Patience, Version
from semivl.errors import StoreError
from semivl.settings import Settings

SHA256, MOVES = "semivl-sha256", "semivl-moves"
"""metadata: of the bytes; of the conditional writes that led to them, a token each, the last one last"""
_REFUSED = 2.5
"""seconds for which a server that refuses connections is asked; one that has answered before may be starting again"""
_PUTS = 3
T = TypeVar("T")


class Requests:
    """What a store is made of: a bucket, a client for every process, and patience."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = settings.s3_bucket
        self._clients: dict[int, Any] = {}
        self._answered = False
        self._checksum = "sha256"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_clients": {}}

    @property
    def client(self) -> Any:
        """This process' boto3 client."""
        process = os.getpid()
        if process not in self._clients:
            self._clients[process] = make_client(self.settings)
        return self._clients[process]

    def _put(self, key: str, outgoing: Outgoing, condition: dict[str, str], moves: tuple[str, ...]) -> bool:
        """One try, True where it succeeds; what S3 keeps is what was sent.

        Raises:
            RequestError: any; `lost` where the condition does not hold.
        """
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"  # so that a browser shows a page
        metadata = {SHA256: outgoing.sha256.hex()} | ({MOVES: ",".join(moves)} if moves else {})
        told = {"Bucket": self.bucket, "Key": key, "ContentType": kind, "Metadata": metadata}
        for _ in range(_PUTS):
            checksum = outgoing.checksum(self._checksum)
            try:
                with faults(outgoing.place), outgoing.opened() as body:
                    answer = self.client.put_object(Body=body, **told, **condition, **checksum)
            except RequestError as fault:
                if self._checksum == "md5" or fault.passes or "checksum" not in str(fault.error).lower():
                    raise
                self._checksum = "md5"
                continue
            self._answered = True
            if self._arrived(outgoing, answer):
                return True
            condition = {"IfMatch": answer["ETag"]}  # over what arrived in its stead, and nothing else
        raise RequestError(misarrived(outgoing.place), passes=False)

    def _arrived(self, outgoing: Outgoing, answer: dict[str, Any]) -> bool:
        """Whether S3 keeps what was sent: it says that it compared the checksum, gives the MD5 as ETag, or we look."""
        etag = answer["ETag"]
        if answer.get("ChecksumSHA256") == outgoing.checksum("sha256")["ChecksumSHA256"]:
            return True
        if etag.strip('"') == outgoing.md5.hex():
            return True
        with tempfile.TemporaryFile() as file:
            incoming = Incoming(file, outgoing.place, version=Version(etag, outgoing.size, {}))
            try:
                self._read(incoming)
            except RequestError:  # others have written over it meanwhile
                return True
            return incoming.sha256() == outgoing.sha256.hex()

    def _version(self, key: str) -> Version | None:
        """What S3 says of the object; None where there is none."""
        try:
            answer = self._ask("head_object", key, Key=key)
        except StoreError as error:
            if error.code != "STORE003":
                raise
            return None
        return Version(answer["ETag"], answer["ContentLength"], answer.get("Metadata", {}))

    def _read_whole(self, incoming: Incoming) -> str | None:
        """Reads until the bytes are those that were put; their SHA-256, None where it is not known what was put.

        Raises:
            RequestError: `lost`, the version that was wanted is no more.
        """
        before, patience = None, self._patience()
        while True:
            self._read(incoming)
            assert incoming.version
            expected = incoming.version.metadata.get(SHA256)
            if expected is None:
                return None
            found = incoming.sha256()
            if found == expected:
                return found
            incoming.restart()
            if found == before:  # the way spoils other bytes every time
                raise damaged(incoming.place)
            before = found
            patience.bear(RequestError(damaged(incoming.place), passes=True))

    def _read(self, incoming: Incoming, last: int | None = None) -> None:
        """Reads what is missing up to the byte `last`, or the object's end; RequestError as `_read_whole`."""
        patience = self._patience()
        while not incoming.complete:
            try:
                with faults(incoming.place):
                    asked = {"Bucket": self.bucket, "Key": incoming.place.key} | incoming.request(last)
                    answer = self.client.get_object(**asked)
                    incoming.take(answer, self.settings.s3_read_timeout, patience.progressed)
                self._answered = True
            except RequestError as fault:
                if fault.lost and incoming.wanted:
                    raise
                if fault.lost:
                    incoming.restart()
                if incoming.advanced():
                    patience.progressed()
                patience.bear(fault)

    def _ask(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        """S3's answer to a request without a body."""

        def attempt() -> dict[str, Any]:
            with faults(self._place(key)):
                return getattr(self.client, operation)(Bucket=self.bucket, **arguments)

        return self._persist(attempt)

    def _persist(self, attempt: Callable[[], T]) -> T:
        """What the attempt gives, made again while its faults may pass."""
        patience = self._patience()
        while True:
            try:
                given = attempt()
                self._answered = True
                return given
            except RequestError as fault:
                patience.bear(fault)

    def _patience(self) -> Patience:
        seconds = self.settings.s3_patience
        return Patience(seconds, seconds if self._answered else min(seconds, _REFUSED))

    def _place(self, key: str) -> Place:
        return Place(self.settings, self.bucket, key)
