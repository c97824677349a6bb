"""The services of compose.yaml as processes of this machine, from the very commands, variables and checks in it.

What differs from containers, and nothing else: names of services become 127.0.0.1, ports become free ones, mounts
become folders below one of the test's own, and programs are those of this environment. Where an image's own start
does more than its command (Postgres makes its data folder), this does the same steps.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from semivl.services.environment import tool
from semivl.settings import ROOT
from tests.conftest import free_port, free_s3_port
from tests.infra import compose

PATIENCE = 300.0
"""seconds that a service may take until its check succeeds, on a busy machine"""
_HOSTS = ("postgres", "s3", "mlflow", "prefect")
_OWN_PORT = "8080"
"""each worker's health check; two of them on one machine need two ports"""
_PROGRAMS = {
    "python": [sys.executable],
    "python3": [sys.executable],
    "prefect": [sys.executable, "-m", "prefect"],
    "mlflow": [sys.executable, "-m", "mlflow"],
}


def postgres_programs() -> Path | None:
    """The folder with initdb and postgres; None where they are not installed."""
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((path.parent for path in installed), default=None)


def unprivileged() -> list[str]:
    """What comes before a command of Postgres, which refuses to run as root."""
    if os.geteuid():
        return []
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@contextmanager
def new_stack(settings: dict[str, str] | None = None) -> Iterator["Stack"]:
    """A stack in a folder of its own, with those settings or the new ones of make_env.py; all of it goes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="semivl-team-"))
    folder.chmod(0o711)  # Postgres' user passes through
    made = [sys.executable, compose.FOLDER / "make_env.py", "--output", folder / ".env"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    stack = Stack(folder, settings or compose.env_file(folder / ".env"))
    try:
        yield stack
    finally:
        stack.down()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Stack:
    """The services in a folder. `up` starts one with all that it depends on; `down` ends every process."""

    folder: Path
    settings: dict[str, str]
    services: dict[str, Any] = field(init=False)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.services = compose.read()["services"]
        first = free_s3_port()
        self.ports = {"8333": first, "9333": first + 1, "8081": first + 2, "8888": first + 3}
        self.ports |= {port: free_port() for port in ("5432", "5000", "4200")}
        self.own_ports = {name: free_port() for name in self.services}

    def up(self, *names: str) -> None:
        """Starts these and what they depend on, each when what it waits for is healthy or has ended well."""
        wanted = set(names)
        for name in reversed(compose.start_order(self.services)):
            if name in wanted:
                wanted |= set(self.services[name].get("depends_on", ()))
        for name in [n for n in compose.start_order(self.services) if n in wanted]:
            self._start(name)

    def down(self) -> None:
        """Ends what was started, the last one first, with everything that it started."""
        for name in reversed(self.running):
            process = self.running[name]
            below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            for left in below:
                if left.is_running():
                    left.kill()
        self.running.clear()

    @property
    def photos(self) -> Path:
        """The team's folder of sources: data/ of the checkout, were it not a test."""
        return self.folder / "photos"

    def address(self, name: str, port: str) -> str:
        return f"{name}://127.0.0.1:{self.ports[port]}"

    def environment(self, name: str) -> dict[str, str]:
        """The variables that the service's process gets: those of compose.yaml, and none of this process' but PATH."""
        given = {key: self._here(name, str(value)) for key, value in self.services[name]["environment"].items()}
        programs = [str(tool("weed").parent), str(postgres_programs() or ""), os.environ.get("PATH", os.defpath)]
        surroundings = {"PATH": os.pathsep.join(programs), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return surroundings | given | {"SEMIVL_ENV_FILE": str(self.folder / "none.env")}

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def told(self) -> str:
        """The end of every log, for a failure's message."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def _start(self, name: str) -> None:
        if name in self.running or name in self.done:
            return
        if name == "postgres":
            self._prepare_postgres()
        command = self._command(name)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command, env=self.environment(name), cwd=self._workdir(name), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        if "healthcheck" not in self.services[name]:  # does its work and ends
            assert process.wait(PATIENCE) == 0, f"{name} failed\n{self.told()}"
            self.done.add(name)
            return
        self.running[name] = process
        self._wait(name, process)

    def _wait(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Until the service's own health check succeeds."""
        kind, *check = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        command, until = self._translated(name, check), time.monotonic() + PATIENCE
        while subprocess.run(command, env=self.environment(name), capture_output=True).returncode:
            assert process.poll() is None, f"{name} has ended\n{self.told()}"
            assert time.monotonic() < until, f"{name} is not healthy after {PATIENCE:.0f} s\n{self.told()}"
            time.sleep(0.5)

    def _command(self, name: str) -> list[str]:
        service = self.services[name]
        given = self._translated(name, [*service.get("entrypoint", ()), *service["command"]])
        if name == "postgres":
            where = ["-D", str(self._data()), "-k", str(self._data().parent), "-c", "listen_addresses=127.0.0.1"]
            return [*unprivileged(), *given, *where]
        return given

    def _translated(self, name: str, command: list[str]) -> list[str]:
        """The command with this machine's programs, ports and folders."""
        words = [self._here(name, word) for word in command]
        if words[0] == "pg_isready":
            words.append(f"--port={self.ports['5432']}")
        return [*_PROGRAMS.get(words[0], words[:1]), *words[1:]]

    def _here(self, name: str, text: str) -> str:
        """`text` of compose.yaml as it is meant on this machine, variables put in last."""
        known = self.ports | {_OWN_PORT: self.own_ports[name]}
        text = re.sub(rf"(?<![\w.-])(?:{'|'.join(_HOSTS)})(?=:\d)", "127.0.0.1", text).replace("0.0.0.0", "127.0.0.1")
        text = re.sub(rf"(?<!\w)(?:{'|'.join(known)})(?!\w)", lambda found: str(known[found[0]]), text)
        mounts = self._mounts(name)
        targets = "|".join(re.escape(target) for target in sorted(mounts, key=len, reverse=True))
        text = re.sub(rf"(?<![\w/])(?:{targets})(?![\w-])", lambda found: str(mounts[found[0]]), text)
        return compose.interpolated(text, self.settings)

    def _mounts(self, name: str) -> dict[str, Path]:
        """Where the folders and files that the service sees lie here."""
        found = {"/semivl": ROOT}
        for one in self.services[name].get("volumes", ()):
            source, target = one.split(":")[:2]
            if source == "../../data":
                found[target] = self.photos
            elif source.startswith("."):
                found[target] = (compose.FOLDER / source).resolve()
            else:
                found[target] = self.folder / "volumes" / source
        for one in self.services[name].get("tmpfs", ()):
            target = one.split(":")[0]
            found[target] = self.folder / "tmpfs" / name / target.strip("/").replace("/", "-")
        for source in found.values():
            if not source.exists():
                source.mkdir(parents=True)
        return found

    def _workdir(self, name: str) -> Path:
        """As the images have it: the checkout for what runs flows, a place to write for the rest."""
        return ROOT if "worker" in self.services[name]["image"] else self.folder

    def _data(self) -> Path:
        return self.folder / "volumes" / "postgres" / "data"

    def _prepare_postgres(self) -> None:
        """A new data folder, and the roles, as the image's entry point makes them."""
        programs, data = postgres_programs(), self._data()
        assert programs
        data.mkdir(parents=True)
        password = data.parent / "password"
        password.write_text(self.settings["POSTGRES_PASSWORD"])
        if not os.geteuid():
            for path in (data, data.parent, password):
                shutil.chown(path, "nobody", "nogroup")
        given = self.environment("postgres")
        options = ["--username", given["POSTGRES_USER"], f"--pwfile={password}", *given["POSTGRES_INITDB_ARGS"].split()]
        self._run([programs / "initdb", "-D", data, "--auth-local=trust", *options], given)
        password.unlink()
        quiet = f"-c listen_addresses= -k {data.parent}"
        control = [programs / "pg_ctl", "-D", data, "-w"]
        self._run([*control, "-o", quiet, "-l", data.parent / "first.log", "start"], given)
        try:
            self._run([compose.FOLDER.parent / "shared" / "roles.sh"], given | {"PGHOST": str(data.parent)})
        finally:
            self._run([*control, "stop"], given)

    def _run(self, command: list[Any], environment: dict[str, str]) -> None:
        with self.log("postgres").open("ab") as log:
            whole = [*unprivileged(), *map(str, command)]
            subprocess.run(
                whole, env=environment, cwd=self._data().parent, stdout=log, stderr=log, check=True, timeout=120
            )
