"""The gate before MLflow's scoring server: no body is held that is larger than allowed, nor too many at once.

MLflow reads a body whole, parses whatever JSON, CSV or Parquet it holds, and only then asks the model. It lets nobody
add a middleware to its server, so the gate stands around every FastAPI app of the process that serves: `bound_requests`
is called while the model is loaded, before MLflow makes the app.
"""

import asyncio
import functools
import json
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from semivl.serving.serve_settings import ServeSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_VALUES_AN_IMAGE, _MORE_VALUES = 8, 64
"""commas and brackets of a request's JSON, of which base64 has none: a few bytes become a hundred in memory"""


class GateError(Exception):
    """A request that is not let in: HTTP status, code, and what is wrong and what to do."""

    def __init__(self, status: int, code: str, what: str) -> None:
        super().__init__(status, code, what)
        self.status, self.code, self.what = status, code, what


class Gate:
    """Counts the bytes of all bodies that are being read or answered."""

    def __init__(self, bounds: ServeSettings) -> None:
        self._bounds, self._held = bounds, 0

    async def let_in(self, app: Callable[..., Awaitable[None]], scope: Any, receive: Receive, send: Send) -> None:
        """Answers the request by the app, or says why not."""
        body = bytearray()
        try:
            try:
                _require_json(scope)
                async with asyncio.timeout(_seconds()):
                    if not await self._read(body, scope, receive):
                        return None
                _require_few_values(body, self._bounds.images)
            except GateError as fault:
                return await _answer(send, fault)
            except TimeoutError:
                return await _answer(
                    send, GateError(408, "PRED014", "the body did not arrive in time. Send it at once.")
                )
            await app(scope, _replayed(bytes(body), receive), send)
        finally:
            self._held -= len(body)

    async def _read(self, body: bytearray, scope: Any, receive: Receive) -> bool:
        """Adds the request's body to `body`; False where the client left."""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return False
            part = message.get("body", b"")
            self._require_room(scope, len(body) + len(part), len(part))
            self._held += len(part)
            body += part
            more = message.get("more_body", False)
        return True

    def _require_room(self, scope: Any, size: int, more: int) -> None:
        told = dict(scope["headers"]).get(b"content-length", b"0")
        size = max(size, int(told) if told.isdigit() else 0)
        if size > self._bounds.bytes:
            raise GateError(
                413, "PRED013", f"the body has more than {self._bounds.bytes} bytes. Send fewer or smaller images; "
                "the server's SEMIVL_SERVE_BYTES sets the bound.",
            )  # fmt: skip
        if self._held + more > self._bounds.waiting_bytes:
            raise GateError(503, "PRED015", "too many requests wait. Try again a little later.")


def is_serving() -> bool:
    """Whether MLflow's scoring server is what loads the model."""
    return "mlflow.pyfunc.scoring_server.app" in sys.modules


def bound_requests(bounds: ServeSettings) -> None:
    """Puts the gate before the app that MLflow's scoring server is about to make."""
    from fastapi import FastAPI

    gate, app = Gate(bounds), FastAPI.__call__

    @functools.wraps(app)
    async def guarded(self: Any, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            await gate.let_in(functools.partial(app, self), scope, receive, send)
        else:
            await app(self, scope, receive, send)

    FastAPI.__call__ = guarded


def _seconds() -> float:
    """How long MLflow lets a request take."""
    return float(os.environ.get("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "60"))


def _require_json(scope: Any) -> None:
    kind = dict(scope["headers"]).get(b"content-type", b"").split(b";")[0].strip()
    if kind != b"application/json":
        raise GateError(415, "PRED012", "the body is no application/json. Send JSON, as docs/prediction.md shows.")


def _require_few_values(body: bytearray, images: int) -> None:
    most = _VALUES_AN_IMAGE * images + _MORE_VALUES
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > most:
        what = f"the JSON has more values than {images} images need. Send a list of records with an image each."
        raise GateError(400, "PRED012", what)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What hands the body on in one piece, then whatever comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def once() -> Message:
        return waiting.pop() if waiting else await receive()

    return once


async def _answer(send: Send, fault: GateError) -> None:
    """As MLflow's errors are written."""
    told = {400: "BAD_REQUEST", 503: "TEMPORARILY_UNAVAILABLE"}.get(fault.status, "INVALID_PARAMETER_VALUE")
    body = json.dumps({"error_code": told, "message": f"{fault.code} {fault.what}"}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers += [(b"retry-after", b"2")] if fault.status == 503 else []
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
