"""The ports that the embedded services take on 127.0.0.1, and who holds one that is busy."""

import socket
import time

import psutil
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from semivl.errors import ServiceError
from semivl.settings import users

HOST = "127.0.0.1"


class ServicePorts(BaseSettings):
    """Ports and limits of the embedded services: SEMIVL_S3_PORT and so on, from the environment or `.env`."""

    model_config = SettingsConfigDict(env_prefix="SEMIVL_", extra="ignore", frozen=True)

    s3_port: int = Field(9330, ge=1024, le=55531, description="S3; takes the four above and each + 10000 too")
    mlflow_port: int = Field(5330, ge=1024, le=65535, description="MLflow")
    prefect_port: int = Field(4330, ge=1024, le=65535, description="Prefect")
    flow_runs: int = Field(2, ge=1, description="flow runs that the worker runs at once")


def ports() -> ServicePorts:
    return users(ServicePorts)


def s3_ports(first: int) -> tuple[int, ...]:
    """All the ports of SeaweedFS: S3, master, volume, filer and admin, each with its gRPC port."""
    return tuple(port for p in range(first, first + 5) for port in (p, p + 10000))


def is_free(port: int) -> bool:
    """Whether nobody listens on the port; a listener on all interfaces counts too."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports just left by us are free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def require_free(name: str, needed: tuple[int, ...], setting: str) -> None:
    """Raises ServiceError SERV001 for the first of the ports that is busy, and stays so for two seconds."""
    deadline = time.monotonic() + 2  # what was killed a moment ago may still hold it
    for port in needed:
        while not is_free(port):
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise ServiceError(
                "SERV001",
                f"{name} needs port {port} of {HOST}, which {holder(port) or 'another process'} holds.",
                f"End that process, or choose another port with {setting} in the environment or .env.",
            )


def holder(port: int) -> str | None:
    """Name and id of the process that listens on the port, where the system lets us see it."""
    try:
        found = [c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid]
        return f"{psutil.Process(found[0]).name()} (process {found[0]})" if found else None
    except psutil.Error:
        return None
