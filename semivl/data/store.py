"""The object store: the one door to S3, for every record that passes between the stages.

What may be written once is written with If-None-Match, what moves is moved with If-Match: S3 itself decides
who was first, so any number of writers may run at once. A Store may be pickled and may cross a fork: every
process makes its own client.
"""

import mimetypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from semivl.errors import StoreError
from semivl.settings import Settings, settings

_REFUSED = {
    "403", "AccessDenied", "ExpiredToken", "Forbidden", "InvalidAccessKeyId", "InvalidToken",
    "SignatureDoesNotMatch", "TokenRefreshRequired",
}  # fmt: skip
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_LOST_RACE = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_HERE_ALREADY = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
_CHUNK = 1 << 20
_Passed = list[str]


class Store:
    """A bucket. Every method raises StoreError: STORE001 not reachable, STORE002 credentials refused,
    STORE003 no such object, STORE004 no such bucket, STORE005 the server refused for another reason."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = settings.s3_bucket
        self._clients: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_clients": {}}

    @property
    def client(self) -> Any:
        """This process' boto3 client."""
        if os.getpid() not in self._clients:
            self._clients = {os.getpid(): _client(self.settings)}
        return self._clients[os.getpid()]

    def address(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def link(self, page: str) -> str:
        """An address that a browser opens an HTML object with, signed for a week, S3's longest."""
        asked = {"Bucket": self.bucket, "Key": page, "ResponseContentType": "text/html"}
        return self.client.generate_presigned_url("get_object", Params=asked, ExpiresIn=7 * 24 * 3600)

    def ensure_bucket(self) -> None:
        """Makes the bucket where it is not there."""
        with self._faults("", pass_on=_ABSENT) as fault:
            self.client.head_bucket(Bucket=self.bucket)
        if not fault:
            return
        region = self.settings.s3_region
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with self._faults("", pass_on=_HERE_ALREADY):
            self.client.create_bucket(Bucket=self.bucket, **place)

    def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
        """The object's bytes, or `length` of them from `start`."""
        part = {}
        if start is not None or length is not None:
            first = start or 0
            part = {"Range": f"bytes={first}-{'' if length is None else first + length - 1}"}
        with self._faults(key):
            return self.client.get_object(Bucket=self.bucket, Key=key, **part)["Body"].read()
        raise AssertionError  # _faults raised

    def get_with_etag(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and its ETag, for `put_if_match`; None where there is no such object."""
        with self._faults(key, pass_on=_ABSENT):
            answer = self.client.get_object(Bucket=self.bucket, Key=key)
            return answer["Body"].read(), answer["ETag"]
        return None

    def download(self, key: str, path: Path) -> None:
        """The object as a file, which appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with self._faults(key), os.fdopen(handle, "wb") as file:
                for chunk in self.client.get_object(Bucket=self.bucket, Key=key)["Body"].iter_chunks(_CHUNK):
                    file.write(chunk)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)

    def put(self, key: str, body: bytes | Path) -> None:
        """Writes the object, over one of that name where there is one."""
        self._put(key, body, {}, frozenset())

    def put_if_absent(self, key: str, body: bytes | Path) -> bool:
        """Writes the object unless one of that name is there; says whether it did."""
        if isinstance(body, Path) and self.exists(key):
            return False  # saves the upload; the condition below is what decides
        return self._put(key, body, {"IfNoneMatch": "*"}, _LOST_RACE)

    def put_if_match(self, key: str, body: bytes, etag: str | None) -> bool:
        """Writes the object if it still has that ETag (None: is still absent); says whether it did."""
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        return self._put(key, body, condition, _LOST_RACE if etag is None else _LOST_RACE | _ABSENT)

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """Bytes of the object; None where there is none."""
        with self._faults(key, pass_on=_ABSENT):
            return self.client.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
        return None

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with `prefix`, in S3's order."""
        with self._faults(prefix):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                yield from (item["Key"] for item in page.get("Contents", ()))

    def delete(self, key: str) -> None:
        """Removes the object; none of that name is as well."""
        with self._faults(key, pass_on=_ABSENT):
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def _put(self, key: str, body: bytes | Path, condition: dict[str, str], lost: set[str] | frozenset[str]) -> bool:
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"  # so that a browser shows a page
        named = {"Bucket": self.bucket, "Key": key, "ContentType": kind} | condition
        with self._faults(key, pass_on=lost) as fault:
            if isinstance(body, Path):
                with body.open("rb") as file:
                    self.client.put_object(Body=file, **named)
            else:
                self.client.put_object(Body=body, **named)
        return not fault

    @contextmanager
    def _faults(self, key: str, pass_on: set[str] | frozenset[str] = frozenset()) -> Iterator[_Passed]:
        """Turns botocore's exceptions into StoreErrors; those in `pass_on` are collected."""
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        passed: _Passed = []
        try:
            yield passed
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code not in pass_on:
                raise self._refusal(key, code, error) from None
            passed.append(code)
        except (NoCredentialsError, PartialCredentialsError):
            raise self._no_credentials("there are none") from None
        except (BotoCoreError, ValueError) as error:
            raise StoreError(
                "STORE001",
                f"S3 cannot be reached at {self._endpoint} ({' '.join(str(error).split())}).",
                "Start the embedded services with `semivl up`, or mend SEMIVL_S3_ENDPOINT.",
            ) from None

    def _refusal(self, key: str, code: str, error: Exception) -> StoreError:
        if code in _REFUSED:
            return self._no_credentials(code)
        if code == "NoSuchBucket" or (not key and code in _ABSENT):
            return StoreError(
                "STORE004", f"there is no bucket {self.bucket} at {self._endpoint}.", "Mend SEMIVL_S3_BUCKET."
            )
        if code in _ABSENT:
            return StoreError(
                "STORE003",
                f"there is no {self.address(key)}.",
                "Run the stage that writes it, or mend the name.",
            )
        return StoreError(
            "STORE005",
            f"S3 refused {self.address(key)}: {error}.",
            "Look at the log of the S3 server; try again.",
        )

    def _no_credentials(self, why: str) -> StoreError:
        return StoreError(
            "STORE002",
            f"S3 at {self._endpoint} refuses the credentials ({why}).",
            "Run `semivl up`, or mend SEMIVL_S3_ACCESS_KEY and SEMIVL_S3_SECRET_KEY.",
        )

    @property
    def _endpoint(self) -> str:
        return self.settings.s3_endpoint or f"AWS ({self.settings.s3_region}; SEMIVL_S3_ENDPOINT is not set)"


def open_store() -> Store:
    """The store that the settings name, seen to answer; its bucket is made where it is not there."""
    return _opened(settings())  # pyright: ignore[reportArgumentType]  (frozen models can be hashed)


@lru_cache(maxsize=4)
def _opened(chosen: Settings) -> Store:
    store = Store(chosen)
    store.ensure_bucket()
    return store


def _client(chosen: Settings) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    access, secret = chosen.s3_access_key, chosen.s3_secret_key
    return Session().client(
        "s3",
        endpoint_url=chosen.s3_endpoint,
        region_name=chosen.s3_region,
        aws_access_key_id=access.get_secret_value() if access else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            connect_timeout=2,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=16,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if chosen.s3_endpoint else None,
            proxies={} if _on_this_machine(chosen.s3_endpoint) else None,  # else the environment's proxy
        ),
    )


def _on_this_machine(endpoint: str | None) -> bool:
    host = urlsplit(endpoint or "").hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
