"""home()/services.env: addresses and credentials of the embedded services, for this user's eyes only."""

import os
import secrets
from pathlib import Path

from dotenv import dotenv_values

from semivl.services.ports import HOST, ports
from semivl.settings import Settings, home, settings, users

MODE = 0o600


def path() -> Path:
    return home() / "services.env"


def ensure() -> dict[str, str]:
    """Writes services.env and gives its values: the credentials stay as they are once they are chosen."""
    known = dotenv_values(path()) if path().is_file() else {}
    chosen, own = ports(), users(Settings)
    values = {}
    if "s3_endpoint" not in own.model_fields_set:  # set but empty is AWS itself
        values["SEMIVL_S3_ENDPOINT"] = f"http://{HOST}:{chosen.s3_port}"
        values["SEMIVL_S3_ACCESS_KEY"] = known.get("SEMIVL_S3_ACCESS_KEY") or secrets.token_hex(10)
        values["SEMIVL_S3_SECRET_KEY"] = known.get("SEMIVL_S3_SECRET_KEY") or secrets.token_urlsafe(30)
    if own.mlflow_uri is None:
        values["SEMIVL_MLFLOW_URI"] = f"http://{HOST}:{chosen.mlflow_port}"
    if own.prefect_api_url is None:
        values["SEMIVL_PREFECT_API_URL"] = f"http://{HOST}:{chosen.prefect_port}/api"
    if values != known:
        _write("".join(f"{name}={value}\n" for name, value in values.items()))
    path().chmod(MODE)
    settings.cache_clear()
    return values


def _write(text: str) -> None:
    """Replaces services.env in one step; no moment at which others could read it."""
    draft = path().with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "w") as file:
        file.write("# Written by `semivl up`. Your own settings belong in .env, which is stronger.\n" + text)
    draft.replace(path())
