"""infra/compose/compose.yaml as Docker Compose reads it: settings of .env put in, and refused where one is missing."""

import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "infra" / "compose"
COMPOSE = FOLDER / "compose.yaml"
TLS = FOLDER / "compose.tls.yaml"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<rest>[^}]*))?\}")


class _Loader(yaml.SafeLoader):
    """Takes Compose's own tags too."""


_Loader.add_constructor("!reset", lambda loader, node: None)


def read(path: Path = COMPOSE) -> dict[str, Any]:
    """The file with its anchors resolved, its variables as they stand."""
    return yaml.load(path.read_text(), _Loader)


def interpolated(value: Any, settings: dict[str, str]) -> Any:
    """`value` with the variables of all its strings replaced; ValueError names one that is wanted and not set."""
    if isinstance(value, dict):
        return {name: interpolated(one, settings) for name, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, settings) for one in value]
    if not isinstance(value, str):
        return value

    def put(found: re.Match[str]) -> str:
        if settings.get(found["name"]):
            return settings[found["name"]]
        if found["how"] == ":-":
            return found["rest"]
        raise ValueError(f"{found['name']}: {found['rest']}")

    return _VARIABLE.sub(put, value).replace("$$", "$")


def env_file(path: Path) -> dict[str, str]:
    """The settings that make_env.py wrote."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def start_order(services: dict[str, Any]) -> list[str]:
    """Names such that each comes after all that it depends on."""
    ordered: list[str] = []

    def add(name: str) -> None:
        for before in services[name].get("depends_on", ()):
            add(before)
        if name not in ordered:
            ordered.append(name)

    for name in services:
        add(name)
    return ordered
