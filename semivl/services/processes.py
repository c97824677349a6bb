"""Processes that outlive the command that started them, and how to know them again.

Every process of a service carries SEMIVL_SERVICE and SEMIVL_HOME in its environment, and so does whatever it
starts. That mark, not a name, says whom we may stop. services/NAME.json records the first process of each.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from semivl.settings import home

MARK = "SEMIVL_SERVICE"
_LOG_BYTES = 16 << 20
_LEFTOVER_GRACE = 2.0
_CLOCK_STEP = 60.0
"""Seconds that a process' start time may seem to move when the system's clock is set."""
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Recorded:
    """The first process of a service: its id, when it began (seconds since 1970), and its recipe's hash."""

    pid: int
    created: float
    recipe: str


def log_path(name: str) -> Path:
    return home() / "logs" / f"{name}.log"


def start(name: str, command: Iterable[str], environment: dict[str, str], recipe: str) -> None:
    """Starts the service's process in a session of its own, its output appended to its log."""
    log = log_path(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    folder = home() / name
    folder.mkdir(parents=True, exist_ok=True)
    marked = environment | {MARK: name, "SEMIVL_HOME": str(home())}
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=marked,
            cwd=folder,
            start_new_session=True,
        )
    _started.append(process)
    begun = psutil.Process(process.pid)
    _record(name, Recorded(process.pid, begun.create_time(), recipe))
    while process.poll() is None and not _is_ours(begun, (name,)):
        time.sleep(0.005)  # the system shows the mark a moment after the program has begun


def recorded(name: str) -> Recorded | None:
    """What is written of the service's first process; it may have ended since."""
    try:
        return Recorded(**json.loads(_record_path(name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def running(name: str) -> psutil.Process | None:
    """The service's first process, if it still runs and is the very one that was recorded."""
    for process in _started:
        process.poll()  # collects those that have ended
    known = recorded(name)
    if known is None:
        return None
    try:
        process = psutil.Process(known.pid)
        same = abs(process.create_time() - known.created) < _CLOCK_STEP and _is_ours(process, (name,))
        return process if same else None
    except psutil.Error:
        return None


def marked(*names: str) -> list[psutil.Process]:
    """All processes of these services, with what they started; never this process or one that it runs in."""
    spared = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    return [p for p in psutil.process_iter() if p.pid not in spared and _is_ours(p, names)]


def stop(name: str, grace: float) -> None:
    """Ends every process of the service: asks the first one, waits `grace` seconds, then kills all."""
    first = running(name)
    if first is not None:
        _quietly(first.terminate)
        _ended([first], grace)
    rest = marked(name)
    for process in rest:
        _quietly(process.terminate)
    _ended(rest, _LEFTOVER_GRACE)
    while rest := marked(name):  # again, for what they started meanwhile
        for process in rest:
            _quietly(process.kill)
        _ended(rest, 1)
    _record_path(name).unlink(missing_ok=True)


def log_tail(name: str, lines: int = 8) -> str:
    """The last lines of the service's log."""
    try:
        return "\n".join(log_path(name).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _ended(processes: list[psutil.Process], seconds: float) -> None:
    """Waits until all have ended, `seconds` at most."""
    deadline = time.monotonic() + seconds
    while any(map(_lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    """Whether the process still runs; one that only waits for its parent to notice its end does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_ours(process: psutil.Process, names: tuple[str, ...]) -> bool:
    try:
        environment = process.environ()
    except (psutil.Error, OSError):
        return False  # ended, or somebody else's
    return environment.get(MARK) in names and environment.get("SEMIVL_HOME") == str(home())


def _record_path(name: str) -> Path:
    return home() / "services" / f"{name}.json"


def _record(name: str, value: Recorded) -> None:
    path = _record_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(asdict(value)))
    draft.replace(path)


def _quietly(act: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        act()
