"""Short HTTP calls to the services, without a proxy, a client library or a long wait."""

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

from semivl.errors import ServiceError


def answers(address: str, seconds: float = 2) -> bool:
    """Whether the address answers a GET with a status below 400."""
    try:
        return _ask("GET", address, None, seconds)[0] < 400
    except (OSError, http.client.HTTPException):
        return False


def call(method: str, address: str, body: Any = None, seconds: float = 20) -> Any:
    """The JSON that the address answers; None where there is nothing of that name (404).

    A server that says it is too busy (503), as Prefect does while its SQLite is locked, is asked again.

    Raises:
        ServiceError: SERV008, not reachable, or the answer is an error.
    """
    remedy = "See what `semivl status` says and the service's log."
    try:
        until = time.monotonic() + seconds
        status, answer = _ask(method, address, body, seconds)
        while status == 503 and time.monotonic() < until:
            time.sleep(0.5)
            status, answer = _ask(method, address, body, seconds)
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError("SERV008", f"{method} {address} got no answer: {error}.", remedy) from error
    if status == 404:
        return None
    if status >= 400:
        words = answer[:300].decode(errors="replace")
        raise ServiceError("SERV008", f"{method} {address} got {status}: {words}.", remedy)
    return json.loads(answer) if answer else None


def _ask(method: str, address: str, body: Any, seconds: float) -> tuple[int, bytes]:
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    try:
        content = None if body is None else json.dumps(body)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
