"""A proxy between a client and a real S3 that does to requests what networks and busy servers do to them.

    with FaultProxy(settings.s3_endpoint, {"lost": 0.3}, seed=1) as proxy:
        Store(settings.model_copy(update={"s3_endpoint": proxy.address}))

What it does not spoil it passes on byte for byte, the Host header and the signature too. `proxy.injected` counts
what was really done, so that a test can demand that there were faults.
"""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlsplit

KINDS = {
    "refused": "the connection is reset before the request is passed on",
    "cut_request": "the connection is reset in the middle of the request's body",
    "lost": "the server does what was asked, but the connection is reset before its answer",
    "cut_answer": "the connection is reset in the middle of the answer's body",
    "truncated": "the answer's body ends early, and the connection is closed in good order",
    "slow_down": "503 SlowDown; the server never hears of it",
    "internal": "500 InternalError; the server never hears of it",
    "internal_done": "500 InternalError, although the server did what was asked",
    "stalled_request": "the proxy stops reading in the middle of the request's body",
    "stalled": "the proxy falls silent before or in the answer's body",
    "trickled": "an object comes byte by byte",
    "corrupt_answer": "one bit of an object, or of an error, on its way to the client is flipped",
    "corrupt_request": "one bit of an object on its way to the server is flipped",
    "unknown_checksum": "400, as from servers that know Content-MD5 and no other checksum",
}
_BEFORE = {"refused", "slow_down", "internal", "unknown_checksum"}
_IN_REQUEST = {"cut_request", "stalled_request", "corrupt_request"}
_PIECE = 64 << 10
_TRICKLE = 0.05
"""seconds between two bytes"""
_REFUSALS = {
    "slow_down": (503, "Slow Down", "SlowDown", "Please reduce your request rate."),
    "internal": (500, "Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
    "unknown_checksum": (400, "Bad Request", "InvalidArgument", "Unsupported header 'x-amz-checksum-sha256'."),
}


@dataclass(frozen=True)
class Message:
    """The head of a request or an answer."""

    first: str
    """the line that says what it is"""
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def without(self, *names: str) -> "Message":
        return replace(self, headers=tuple((k, v) for k, v in self.headers if k.lower() not in names))

    @property
    def length(self) -> int:
        """Bytes of its body."""
        return int(self.header("content-length") or 0)

    def encoded(self) -> bytes:
        lines = [self.first, *(f"{key}: {value}" for key, value in self.headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")


class FaultProxy:
    """`address` in place of `upstream`, for as long as the context lasts. Any number of connections at once."""

    def __init__(
        self,
        upstream: str,
        chances: Mapping[str, float],
        seed: int = 0,
        stall: float = 5.0,
        port: int = 0,
        change_answer: Callable[[Message, Message], Message] = lambda request, answer: answer,
    ) -> None:
        """`chances`: of each kind, a request. `stall`: seconds of silence. `port`: 0 for any. `change_answer`: what
        becomes of the head of an answer to a request, for what a server may do that is no fault of the way."""
        assert not set(chances) - set(KINDS)
        self.chances, self.stall, self.port, self.change_answer = dict(chances), stall, port, change_answer
        self.injected: Counter[str] = Counter()
        self.requests: list[Message] = []
        """what was asked, in order"""
        self._random = random.Random(seed)
        parts = urlsplit(upstream)
        self._upstream = parts.hostname, parts.port
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), name="fault proxy")
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=self._listener, limit=_PIECE)
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await _Exchange(self, reader, writer).run():
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def draw(self, request: Message) -> str | None:
        """The fault that befalls a request, of those that can."""
        method, path = request.first.split()[:2]
        for kind, chance in self.chances.items():
            if kind in _IN_REQUEST and not request.length:
                continue
            if kind == "unknown_checksum" and not request.header("x-amz-checksum-sha256"):
                continue
            if kind == "corrupt_answer" and (method != "GET" or "list-type=" in path):
                continue  # S3 has no checksum for listings
            if self._random.random() < chance:
                return kind
        return None

    def below(self, length: int) -> int:
        """A random place in that many bytes."""
        return self._random.randrange(length) if length else 0


class _Exchange:
    """One request and its answer."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy, self.reader, self.writer = proxy, reader, writer

    async def run(self) -> bool:
        """Whether the connection lives on."""
        request = await _head(self.reader)
        if request is None:
            return False
        self.proxy.requests.append(request)
        self.kind = self.proxy.draw(request)
        if self.kind in _BEFORE:
            return await self._refuse(request)
        up_reader, up_writer = await asyncio.open_connection(*self.proxy._upstream, limit=_PIECE)
        try:
            if not await self._pass_request(request, up_writer):
                return False
            return await self._pass_answer(request, up_reader)
        finally:
            up_writer.transport.abort()

    async def _refuse(self, request: Message) -> bool:
        assert self.kind
        self._count()
        if self.kind == "refused":
            return self._reset()
        if not request.header("expect"):  # else the client waits for leave to send, and will not
            async for _ in _body(self.reader, request.length):
                pass
        await self._answer_error(self.kind, request)
        return True

    async def _pass_request(self, request: Message, up: asyncio.StreamWriter) -> bool:
        """Whether the whole request went to the server."""
        if request.header("expect"):
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        up.write(request.without("expect").encoded())
        spot, at = self.proxy.below(request.length) if self.kind in _IN_REQUEST else -1, 0
        async for piece in _body(self.reader, request.length):
            if at <= spot < at + len(piece):
                self._count()
                if self.kind != "corrupt_request":
                    up.write(piece[: spot - at])
                    await up.drain()
                    if self.kind == "stalled_request":
                        await asyncio.sleep(self.proxy.stall)
                    return self._reset()
                piece = _flipped(piece, spot - at)
            at += len(piece)
            up.write(piece)
            await up.drain()
        return True

    async def _pass_answer(self, request: Message, up: asyncio.StreamReader) -> bool:
        answer = await _head(up)
        if answer is None:
            return self._reset()
        body = up
        if answer.header("transfer-encoding"):
            answer, body = await _unchunked(answer, up)
        answer = self.proxy.change_answer(request, answer)
        bodiless = request.first.startswith("HEAD ") or answer.first.split()[1] in ("204", "304")
        length = 0 if bodiless else answer.length
        if self.kind in ("lost", "internal_done"):
            async for _ in _body(body, length):
                pass
            self._count()
            if self.kind == "lost":
                return self._reset()
            await self._answer_error("internal", request)
            return True
        return await self._pass_body(answer, body, length)

    async def _pass_body(self, answer: Message, body: asyncio.StreamReader, length: int) -> bool:
        spoilt = self.kind in ("cut_answer", "truncated", "stalled", "corrupt_answer") and (
            length or self.kind == "stalled"
        )
        spot, at = self.proxy.below(length) if spoilt else -1, 0
        if self.kind == "stalled" and spot == 0:
            return await self._fall_silent()
        self.writer.write(answer.encoded())
        if self.kind == "trickled" and length and answer.header("etag"):
            return await self._trickle(body, length)
        async for piece in _body(body, length):
            if at <= spot < at + len(piece):
                if self.kind != "corrupt_answer":
                    return await self._break_off(piece[: spot - at])
                self._count()
                piece = _flipped(piece, spot - at)
            at += len(piece)
            self.writer.write(piece)
            await self.writer.drain()
        await self.writer.drain()
        return True

    async def _break_off(self, last: bytes) -> bool:
        self.writer.write(last)
        await self.writer.drain()
        if self.kind == "stalled":
            return await self._fall_silent()
        self._count()
        if self.kind == "truncated":
            return False
        await asyncio.sleep(0.01)  # a reset overtakes what the client has not read yet
        return self._reset()

    async def _fall_silent(self) -> bool:
        self._count()
        await asyncio.sleep(self.proxy.stall)
        return self._reset()

    async def _trickle(self, body: asyncio.StreamReader, length: int) -> bool:
        self._count()
        async for piece in _body(body, length):
            for place in range(len(piece)):
                self.writer.write(piece[place : place + 1])
                await self.writer.drain()
                await asyncio.sleep(_TRICKLE)
                if self.reader.at_eof() or self.writer.is_closing():
                    return False
        return True

    async def _answer_error(self, kind: str, request: Message) -> None:
        status, reason, code, words = _REFUSALS[kind]
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{words}</Message></Error>'
        head = (("Content-Type", "application/xml"), ("Content-Length", str(len(body))))
        self.writer.write(Message(f"HTTP/1.1 {status} {reason}", head).encoded())
        if not request.first.startswith("HEAD "):
            self.writer.write(body.encode())
        await self.writer.drain()

    def _count(self) -> None:
        assert self.kind
        self.proxy.injected[self.kind] += 1

    def _reset(self) -> bool:
        """Ends the connection with a reset, what lies in its buffers lost."""
        plain = self.writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        return False


async def _head(reader: asyncio.StreamReader) -> Message | None:
    """The next head; None where the connection is over."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    pairs = (line.split(":", 1) for line in lines[1:] if line)
    return Message(lines[0], tuple((key, value.strip()) for key, value in pairs))


async def _body(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    while length:
        piece = await reader.read(min(length, _PIECE))
        if not piece:
            raise ConnectionError
        length -= len(piece)
        yield piece


async def _unchunked(answer: Message, reader: asyncio.StreamReader) -> tuple[Message, asyncio.StreamReader]:
    """The answer with its length told, and what gives its body."""
    body = bytearray()
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    whole = asyncio.StreamReader()
    whole.feed_data(bytes(body))
    whole.feed_eof()
    told = answer.without("transfer-encoding")
    return replace(told, headers=(*told.headers, ("Content-Length", str(len(body))))), whole


def _flipped(piece: bytes, place: int) -> bytes:
    return piece[:place] + bytes([piece[place] ^ 0x10]) + piece[place + 1 :]
