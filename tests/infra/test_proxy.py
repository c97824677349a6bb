"""The proxy of compose.tls.yaml: TLS and a password before both pages, by Caddy itself, started as its container is.

Caddy comes from PATH, or from where `make infra-check` puts it; without it these are skipped.
"""

import base64
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from semivl.settings import ROOT
from tests.conftest import free_port
from tests.infra import compose

CADDY = shutil.which("caddy") or shutil.which(ROOT / ".semivl" / "infra-tools" / "bin" / "caddy")
pytestmark = pytest.mark.skipif(CADDY is None, reason="no caddy: neither on PATH nor made by `make infra-check`")
PASSWORD = "correct-horse"


@dataclass(frozen=True)
class Proxy:
    """Caddy's ports, and the certificate of its own authority, which it signs *.localhost with."""

    http: int
    https: int
    health: int
    authority: Path

    def ask(self, host: str, password: str | None = None) -> tuple[int, str]:
        """Status and body that the page of that host answers over TLS, its certificate checked."""
        trusting = ssl.create_default_context(cafile=str(self.authority))
        plain = socket.create_connection(("127.0.0.1", self.https), timeout=20)
        with trusting.wrap_socket(plain, server_hostname=host) as safe:
            sent = ["GET / HTTP/1.1", f"Host: {host}", "Connection: close"]
            if password is not None:
                sent.append(f"Authorization: Basic {base64.b64encode(f'team:{password}'.encode()).decode()}")
            safe.sendall("\r\n".join([*sent, "", ""]).encode())
            response = http.client.HTTPResponse(safe)
            response.begin()
            return response.status, response.read().decode()


class Page(BaseHTTPRequestHandler):
    """Answers with its server's name and the password that reached it, if one did."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.server.name} saw {self.headers['Authorization']}".encode())  # pyright: ignore

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    pages = {}
    for name in ("prefect:4200", "mlflow:5000"):
        page = pages[name] = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        page.name = name.partition(":")[0]  # pyright: ignore
        threading.Thread(target=page.serve_forever, daemon=True).start()
    ports = {"8080": free_port(), "8443": free_port(), "8081": free_port()}
    text = (compose.FOLDER / "proxy" / "Caddyfile").read_text()
    for name, page in pages.items():
        text = text.replace(name, f"127.0.0.1:{page.server_port}")
    (folder / "Caddyfile").write_text(re.sub(r"\b(8080|8443|8081)\b", lambda found: str(ports[found[0]]), text))
    shutil.copy(compose.FOLDER / "proxy" / "start.sh", folder)
    assert CADDY
    given = {
        "PATH": f"{Path(CADDY).parent}{os.pathsep}{os.defpath}", "HOME": str(folder), "XDG_DATA_HOME": str(folder),
        "PROXY_USER": "team", "PROXY_PASSWORD": PASSWORD, "PREFECT_HOST": "prefect.localhost",
        "MLFLOW_HOST": "mlflow.localhost",
    }  # fmt: skip
    log = (folder / "log").open("wb")
    caddy = subprocess.Popen(["/bin/sh", folder / "start.sh"], env=given, cwd=folder, stdout=log, stderr=log)
    made = Proxy(ports["8080"], ports["8443"], ports["8081"], folder / "caddy/pki/authorities/local/root.crt")
    try:
        until = time.monotonic() + 60
        signed = [folder / f"caddy/certificates/local/{n}.localhost/{n}.localhost.crt" for n in ("prefect", "mlflow")]
        while healthy(made) != 204 or not all(map(Path.is_file, (made.authority, *signed))):
            assert caddy.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.2)
        yield made
    finally:
        caddy.terminate()
        caddy.wait(20)
        for page in pages.values():
            page.shutdown()


def healthy(proxy: Proxy) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.health, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.mark.parametrize("page", ["prefect", "mlflow"])
def test_page_opens_with_the_password_alone_and_does_not_learn_it(proxy: Proxy, page: str) -> None:
    host = f"{page}.localhost"
    assert proxy.ask(host)[0] == 401
    assert proxy.ask(host, "wrong")[0] == 401
    assert proxy.ask(host, PASSWORD) == (200, f"{page} saw None")


def test_plain_http_leads_to_tls(proxy: Proxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.http, timeout=20)
    connection.request("GET", "/", headers={"Host": "prefect.localhost", "Authorization": "Basic dGVhbTp3cm9uZw=="})
    response = connection.getresponse()
    assert response.status == 308 and response.headers["Location"].startswith("https://prefect.localhost")
    connection.close()


def test_another_host_gets_no_page(proxy: Proxy) -> None:
    with pytest.raises(ssl.SSLError):  # Caddy has no certificate for it
        proxy.ask("elsewhere.localhost", PASSWORD)
