"""What rank 0 tells, as records on their way to the process that launched it and knows the observer."""

import base64
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semivl import errors
from semivl.errors import SemivlError, TrainingError
from semivl.training.observe import Observer

log = logging.getLogger(__name__)
Record = dict[str, Any]
"""of what JSON has; `kind` says what it tells"""


class Relay(logging.Handler):
    """An observer, and a handler of log lines, that sends all it is told."""

    def __init__(self, send: Callable[[Record], object]) -> None:
        super().__init__(logging.INFO)
        self._send = send

    def listen(self) -> None:
        """Sends the log lines of this process's rooms too."""
        rooms = logging.getLogger("semivl")
        rooms.addHandler(self)
        rooms.setLevel(logging.INFO)

    def samples(self, told: Sequence[str]) -> None:
        self._send({"kind": "samples", "told": list(told)})

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._send({"kind": "metrics", "step": step, "values": values})

    def previews(self, step: int, images: dict[str, np.ndarray]) -> None:
        self._send({"kind": "previews", "step": step, "images": {k: _png(v) for k, v in images.items()}})

    def checkpoint(self, step: int, path: Path) -> None:
        self._send({"kind": "checkpoint", "step": step, "path": str(path)})

    def artifact(self, path: Path) -> None:
        self._send({"kind": "artifact", "path": str(path)})

    def fault(self, fault: SemivlError) -> None:
        """What ended this rank."""
        self._send({"kind": "fault", "words": [type(fault).__name__, fault.code, fault.what, fault.remedy]})

    def emit(self, record: logging.LogRecord) -> None:
        self._send({"kind": "line", "level": record.levelno, "words": record.getMessage()})


def pass_on(what: Record, observer: Observer) -> None:
    """Tells the observer one thing; raises what he does."""
    match what["kind"]:
        case "samples":
            observer.samples(what["told"])
        case "metrics":
            observer.metrics(what["step"], what["values"])
        case "previews":
            observer.previews(what["step"], {name: _pixels(png) for name, png in what["images"].items()})
        case "checkpoint":
            observer.checkpoint(what["step"], Path(what["path"]))
        case "artifact" if Path(what["path"]).is_file():
            observer.artifact(Path(what["path"]))
        case "artifact":
            log.warning("%s lies on the machine of rank 0", what["path"])
        case "line":
            log.log(what["level"], what["words"])


def as_fault(what: Record) -> SemivlError:
    """The fault that a record tells of."""
    kind, *words = what["words"]
    return getattr(errors, kind, TrainingError)(*words)


def append_to(path: Path) -> Callable[[Record], object]:
    """What writes records into a file, a line each; of several processes each line stays whole."""

    def send(what: Record) -> None:
        with path.open("ab", buffering=0) as file:
            file.write(json.dumps(what).encode() + b"\n")

    return send


def records_in(path: Path) -> Iterator[Record | None]:
    """What is written into a file, in order; None whenever there is nothing new yet. Never ends."""
    path.touch()
    unfinished = ""
    with path.open() as file:
        while True:
            unfinished += file.readline()
            if unfinished.endswith("\n"):
                yield json.loads(unfinished)
                unfinished = ""
            else:
                yield None


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
