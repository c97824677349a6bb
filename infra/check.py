"""Judges infra/ with the tools of its trade. `make infra-check` makes the environment that it runs in.

Prints a line a check: ok, FAILED with the tool's own words, or NOT RUN with the reason. Ends with 1 where one failed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INFRA = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
COMPOSE = ["-f", INFRA / "compose" / "compose.yaml"]
TLS = ["-f", INFRA / "compose" / "compose.tls.yaml"]
LOCAL = INFRA / "kubernetes" / "overlays" / "local"


@dataclass(frozen=True)
class Result:
    """What a check came to: `words` are the tool's where it failed, the reason where it was not run."""

    name: str
    state: str
    words: str = ""


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory(prefix="semivl-infra-") as folder:
        for result in (
            *dockerfile(),
            *compose(Path(folder)),
            *kubernetes(Path(folder)),
            *terraform(),
            *proxy(Path(folder)),
        ):
            print(f"{result.state:8} {result.name}{': ' if result.words else ''}{result.words}", flush=True)
            failed += result.state == "FAILED"
    return int(failed > 0)


def dockerfile() -> Iterator[Result]:
    yield judged("Dockerfile, by hadolint", [BIN / "hadolint", INFRA.parent / "Dockerfile"])
    yield checkov("Dockerfile", ["-f", INFRA.parent / "Dockerfile", "--framework", "dockerfile"])


def compose(folder: Path) -> Iterator[Result]:
    """`compose config` with settings made for this, and that it refuses without them."""
    for path in ("compose.yaml", "compose.tls.yaml"):
        yield judged(f"{path}, by compose-lint", [BIN / "compose-lint", "--fail-on", "high", INFRA / "compose" / path])
    command = compose_command()
    if command is None:
        yield Result(
            "compose files, by docker compose", "NOT RUN", "neither `docker compose` nor docker-compose is here"
        )
        return
    settings, clean = folder / "compose.env", {"PATH": os.environ["PATH"], "HOME": str(folder)}
    subprocess.run(
        [sys.executable, INFRA / "compose" / "make_env.py", "--output", settings], check=True, stdout=subprocess.DEVNULL
    )
    asked = [*command, "--env-file", settings, *COMPOSE, "--profile", "gpu"]
    yield judged("compose.yaml, by docker compose", [*asked, "config", "--quiet"], clean)
    yield judged("compose.tls.yaml over it", [*asked, *TLS, "config", "--quiet"], clean)
    without = subprocess.run(
        [*command, "--env-file", "/dev/null", *COMPOSE, "config", "--quiet"], env=clean, capture_output=True, text=True
    )
    clear = without.returncode and "first run python3 infra/compose/make_env.py" in without.stderr
    yield Result("compose refuses to start without .env", "ok" if clear else "FAILED", "" if clear else without.stderr)


def kubernetes(folder: Path) -> Iterator[Result]:
    """Both overlays rendered; the local one with secrets made for this, in a copy."""
    if shutil.which("kubectl") is None:
        yield Result("Kubernetes' manifests", "NOT RUN", "kubectl is not here, which renders them")
        return
    copy = folder / "infra"
    shutil.copytree(INFRA, copy, ignore=shutil.ignore_patterns("*.env"))
    shutil.copy(INFRA / "kubernetes" / "base" / "settings.env", copy / "kubernetes" / "base")
    local = copy / LOCAL.relative_to(INFRA)
    subprocess.run([sys.executable, local / "make_secrets.py"], check=True, stdout=subprocess.DEVNULL)
    for overlay in ("local", "aws"):
        rendered = folder / f"{overlay}.yaml"
        done = subprocess.run(["kubectl", "kustomize", local.parent / overlay], capture_output=True, text=True)
        rendered.write_text(done.stdout)
        yield Result(f"overlay {overlay}, by kustomize", "FAILED" if done.returncode else "ok", done.stderr.strip())
        yield judged(
            f"overlay {overlay}, by kubernetes-validate",
            [BIN / "kubernetes-validate", "--strict", "--quiet", "--no-warn", rendered],
        )
        yield checkov(f"overlay {overlay}", ["-f", rendered, "--framework", "kubernetes"])


def terraform() -> Iterator[Result]:
    folder = INFRA / "terraform"
    if shutil.which("terraform") is None:
        yield Result("Terraform, by terraform fmt", "NOT RUN", "terraform is not here")
    else:
        yield judged(
            "Terraform, by terraform fmt", ["terraform", f"-chdir={folder}", "fmt", "-check", "-diff", "-recursive"]
        )
    yield checkov("Terraform", ["-d", folder, "--framework", "terraform"])


def proxy(folder: Path) -> Iterator[Result]:
    given = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "PROXY_USER": "team", "PREFECT_HOST": "prefect.localhost",
        "MLFLOW_HOST": "mlflow.localhost", "PROXY_PASSWORD_HASH": "$2a$14$" + "a" * 53,
    }  # fmt: skip
    file = INFRA / "compose" / "proxy" / "Caddyfile"
    yield judged("Caddyfile, by caddy", [BIN / "caddy", "validate", "--config", file, "--adapter", "caddyfile"], given)


def compose_command() -> list[str] | None:
    """Compose as Docker's plugin or by itself; neither needs an engine to read a file."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not subprocess.run([*command, "version"], capture_output=True).returncode:
            return command
    return None


def checkov(name: str, what: list) -> Result:
    command = [sys.executable, "-m", "checkov.main", "--config-file", INFRA / "checkov.yaml", *what]
    return judged(f"{name}, by checkov", command)


def judged(name: str, command: list, environment: dict[str, str] | None = None) -> Result:
    """ok where the command ends well; else its own words."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if not done.returncode:
        return Result(name, "ok")
    return Result(name, "FAILED", f"{done.stdout}{done.stderr}".strip())


if __name__ == "__main__":
    sys.exit(main())
