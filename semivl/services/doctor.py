"""What could keep semivl from working on this machine, each with its remedy. It changes nothing."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from semivl.data.store import Store
from semivl.errors import SemivlError
from semivl.services import credentials, processes
from semivl.services.embedded import MLFLOW, NAMES, PREFECT, S3, describe, is_yours, own_address
from semivl.services.ports import holder, is_free
from semivl.services.supervisor import status
from semivl.services.web import answers
from semivl.settings import home, settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_EXTRAS = {"local": "seaweedfs", "ray": "ray", "dev": "pytest"}
_GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `warn` limits what works, `fail` keeps semivl from working."""

    name: str
    level: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return self.level != "fail"


def doctor() -> list[Check]:
    """All checks, in the order in which one would mend them; a setting that cannot be used ends them early."""
    found: list[Check] = []
    for look in (_python, _extras, _disk, _memory, _gpu, _browser, _settings, _secrets, _ports, _services):
        try:
            found += look()
        except SemivlError as error:
            found.append(Check(look.__name__.strip("_"), "fail", f"{error.code} {error.what}", error.remedy))
            break
    return found


def browser() -> str | None:
    """The Chromium that browser tests use: SEMIVL_CHROMIUM, else the first of the usual names on PATH."""
    named = os.environ.get("SEMIVL_CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)


def _python() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = sys.version_info >= (3, 11)
    yield Check("python", "ok" if fits else "fail", f"{version} in {sys.prefix}", "" if fits else "Use 3.11 or later.")


def _extras() -> Iterator[Check]:
    have = [e for e, module in _EXTRAS.items() if e != "local" and importlib.util.find_spec(module)]
    try:
        describe(S3)
        have.insert(0, "local")
    except SemivlError as error:
        level = "ok" if is_yours(S3) else "fail"
        yield Check("extra local", level, error.what, error.remedy)
    yield Check("extras", "ok", ", ".join(have) or "none")


def _disk() -> Iterator[Check]:
    free = shutil.disk_usage(_existing(home())).free / _GIB
    level = "fail" if free < 1 else "warn" if free < 10 else "ok"
    yield Check(
        "disk", level, f"{free:.0f} GiB free at {home()}", "" if level == "ok" else "Free some, or set SEMIVL_HOME."
    )


def _memory() -> Iterator[Check]:
    memory = psutil.virtual_memory()
    level = "warn" if memory.available < 3 * _GIB else "ok"
    found = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free"
    yield Check("memory", level, found, "The services take 1 GiB, a small training 2." if level == "warn" else "")


def _gpu() -> Iterator[Check]:
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Check("gpu", "ok", "none: trainings run on the CPU")
        return
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        found, failed = (done.stdout or done.stderr).strip().replace("\n", "; "), done.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        found, failed = str(error), True
    yield Check("gpu", "warn" if failed else "ok", found, "Mend the NVIDIA driver." if failed else "")


def _browser() -> Iterator[Check]:
    found = browser()
    remedy = "Only make test-browser needs one: install chromium, or set SEMIVL_CHROMIUM."
    yield Check("chromium", "ok" if found else "warn", found or "not found", "" if found else remedy)


def _settings() -> Iterator[Check]:
    settings()
    theirs = [name for name in NAMES if is_yours(name)]
    yield Check("settings", "ok", f"yours: {', '.join(theirs)}" if theirs else "all services are the embedded ones")


def _secrets() -> Iterator[Check]:
    path = credentials.path()
    if not path.is_file():
        yield Check("credentials", "ok", "none yet: semivl up makes them")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    open_to_others = mode & 0o077
    remedy = f"chmod 600 {path}, then change the keys: remove it and run semivl down, semivl up."
    yield Check(
        "credentials", "fail" if open_to_others else "ok", f"{path} has mode {mode:o}", remedy if open_to_others else ""
    )


def _ports() -> Iterator[Check]:
    """The ports of services that do not run must be free."""
    for name in (S3, PREFECT, MLFLOW):
        if is_yours(name) or processes.running(name):
            continue
        service = describe(name)
        for port in (p for p in service.ports if not is_free(p)):
            who = holder(port) or "another process"
            remedy = f"End it, or set {service.setting} to another port."
            yield Check(f"port {port}", "fail", f"{who} holds it; {service.title} needs it", remedy)


def _services() -> Iterator[Check]:
    states = status()
    for state in states:
        if state.state == "yours":
            yield _yours(state.name)
        elif state.state == "running":
            yield Check(state.name, "ok", f"runs at {state.address} (process {state.pid})")
        else:
            yield Check(state.name, "warn", f"is {state.state}; log: {state.log}", "semivl up")
    if any(s.name == S3 and s.state in ("running", "yours") for s in states):
        next(iter(Store(settings()).list("datasets/")), None)
        yield Check("bucket", "ok", f"s3://{settings().s3_bucket} answers and takes our keys")


def _yours(name: str) -> Check:
    """Whether the user's own service can be reached; S3 is asked for its bucket later."""
    address = own_address(name)
    if name == S3 or answers(f"{address}/health", seconds=10):
        return Check(name, "ok", f"yours, at {address}")
    return Check(
        name, "fail", f"yours, at {address}, does not answer", "Check the address, the network and that it runs."
    )


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
