"""The images of a request: from base64, an S3 address or plain bytes to pixels, each looked at before it is opened.

An address is `s3://BUCKET/KEY` in a bucket that the server's settings name, on the one S3 that they lead to; nothing
else is ever fetched. An image is examined in a process of its own, as at ingest (semivl.data.check_pool), and the sum
of all pixels is bounded before any is decoded.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semivl.config import ClassDefinition, Classes
from semivl.data.check_pool import CheckPool, shared_pool
from semivl.data.checks import Checked, Files, Limits
from semivl.data.decode import decode_image
from semivl.data.headers import DamagedError, read_header
from semivl.data.sample import Source
from semivl.data.store import Store
from semivl.errors import DataError, RegistryError, StoreError
from semivl.serving.serve_settings import ServeSettings
from semivl.settings import settings

_NO_CLASSES = Classes(classes=(ClassDefinition(name="0"), ClassDefinition(name="1")))  # pyright: ignore[reportCallIssue]
_ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,62})/(?P<key>[^\x00-\x1f\x7f]{1,1024})")
_DATA = re.compile(r"data:image/(?:jpeg|jpg|png);base64,", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}:")
_CHECKED_MEMORY = 12
"""bytes for each pixel that a check may need"""
_NAMED = 10
"""rows at fault that an error names"""


def decoded(values: Sequence[Any], bounds: ServeSettings) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 of each image, as it is seen, in order; all are examined before the first is decoded.

    Raises:
        RegistryError: REG005 images that cannot be used, by row; PRED013 too many images or pixels.
        StoreError: S3 does not answer.
    """
    if len(values) > bounds.images:
        raise _too_much(f"{len(values)} images are more than {bounds.images}", "SEMIVL_SERVE_IMAGES")
    bodies = _bodies(values, bounds)
    _require_pixels(bodies, bounds)
    _require_sound(bodies, bounds)
    return map(decode_image, bodies)


def check_pool(bounds: ServeSettings) -> CheckPool:
    """The processes that examine, shared by all requests."""
    usual = Limits()
    limits = Limits(min(usual.max_pixels, bounds.pixels), min(usual.max_bytes, bounds.bytes))
    return shared_pool(_NO_CLASSES, limits, 1, _CHECKED_MEMORY * limits.max_pixels, bounds.file_seconds)


def _bodies(values: Sequence[Any], bounds: ServeSettings) -> list[bytes]:
    """The bytes of each image."""
    bodies, faults, left = [], {}, bounds.bytes
    for number, value in enumerate(values):
        try:
            body = _body(value, bounds, left)
        except (DataError, StoreError) as error:
            if error.code in ("STORE001", "STORE006"):  # the server's trouble, not the image's
                raise
            faults[number] = f"{error.code} {error.what}"
            continue
        left -= len(body)
        bodies.append(body)
    if faults:
        raise _unusable(faults)
    return bodies


def _body(value: Any, bounds: ServeSettings, left: int) -> bytes:
    """The image's bytes, of which there may be `left`.

    Raises:
        DataError: PRED010 neither bytes, base64 nor an address, PRED011 an address that is not allowed, DATA014 too
            many bytes.
        StoreError: S3 does not answer, or has no such object.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        body = bytes(value)
    elif not isinstance(value, str):
        raise _no_image(f"it is {'null' if value is None else f'a {type(value).__name__}'}")
    elif value.startswith("s3://"):
        return _fetched(value, bounds, left)
    elif (prefix := _DATA.match(value)) or not _OTHER_SCHEME.match(value[:24]):
        body = _from_base64(value[prefix.end() :] if prefix else value)
    else:
        raise _refused_address(value, "only s3:// is fetched")
    if len(body) > left:
        raise DataError("DATA014", f"the images have more than {bounds.bytes} bytes.", "Send fewer or smaller ones.")
    return body


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _no_image(f"it is no base64: {error}") from None


def _fetched(address: str, bounds: ServeSettings, left: int) -> bytes:
    found = _ADDRESS.fullmatch(address)
    if not found or ".." in found["key"].split("/"):
        raise _refused_address(address, "it is not s3://BUCKET/KEY")
    if found["bucket"] not in bounds.allowed_buckets:
        raise _refused_address(
            address, f"the bucket is not one of {', '.join(sorted(bounds.allowed_buckets)) or '(none)'}"
        )
    store = Store(settings()).of(found["bucket"])
    size = store.size(found["key"])
    if size is None:
        raise StoreError("STORE003", f"there is no {address}.", "Mend the address.")
    if size > left:
        raise DataError("DATA014", f"the images have more than {bounds.bytes} bytes.", "Send fewer or smaller ones.")
    return store.get(found["key"], 0, size) if size else b""


def _require_pixels(bodies: Sequence[bytes], bounds: ServeSettings) -> None:
    """Looks at the headers alone; one that cannot be read is left to the checks, which say why."""
    total, faults = 0, {}
    for number, body in enumerate(bodies):
        try:
            header = read_header(body)
        except DamagedError:
            continue
        pixels = header.width * header.height
        total += pixels
        if pixels > bounds.pixels:
            faults[number] = f"DATA010 {header.width} x {header.height} pixels are more than {bounds.pixels}"
    if faults:
        raise _unusable(faults)
    if total > bounds.pixels:
        raise _too_much(f"the images have {total} pixels, more than {bounds.pixels}", "SEMIVL_SERVE_PIXELS")


def _require_sound(bodies: Sequence[bytes], bounds: ServeSettings) -> None:
    pairs = ((Source(Path(str(number)), None), Files(body, None)) for number, body in enumerate(bodies))
    found = enumerate(check_pool(bounds).examine(pairs))
    faults = {number: f"{f.code} {f.reason}" for number, f in found if not isinstance(f, Checked)}
    if faults:
        raise _unusable(faults)


def _unusable(faults: dict[int, str]) -> RegistryError:
    named = "; ".join(f"row {number}: {why.rstrip('.')}" for number, why in list(faults.items())[:_NAMED])
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    return RegistryError("REG005", f"{named}{more}.", "Send a JPEG or PNG in base64, or its s3:// address.")


def _too_much(what: str, setting: str) -> RegistryError:
    return RegistryError("PRED013", f"{what}.", f"Send fewer or smaller ones; the server's {setting} sets the bound.")


def _no_image(why: str) -> DataError:
    return DataError("PRED010", f"{why}.", "Send the JPEG or PNG in base64, or its s3:// address.")


def _refused_address(address: str, why: str) -> DataError:
    return DataError("PRED011", f"{address[:100]} is not fetched: {why}.", "Send the image itself in base64.")
