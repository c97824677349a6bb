"""Where the services are: S3, MLflow, Prefect, and the folder for everything local.

Read, strongest first, from the environment (`SEMIVL_...`), `.env`, and `.semivl/services.env`, which
`semivl up` writes. Pointing the first two at a company's services is all it takes to leave the embedded ones.
SEMIVL_ENV_FILE names another file in place of `.env`.
"""

import os
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from semivl.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: conf/, flows/ and prefect.yaml lie here."""


def home() -> Path:
    """The one folder that semivl writes to on this machine: SEMIVL_HOME, else `.semivl` in the checkout."""
    return Path(os.environ.get("SEMIVL_HOME", ROOT / ".semivl")).resolve()


class Settings(BaseSettings):
    """Addresses and credentials of the services in use. Secrets never show in a repr, a log or a parameter."""

    model_config = SettingsConfigDict(env_prefix="SEMIVL_", extra="ignore", frozen=True)

    s3_endpoint: str | None = Field(None, description="S3 address; empty for AWS itself")
    s3_bucket: str = Field("semivl", description="bucket that holds datasets, scores and decisions")
    s3_region: str = "us-east-1"
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None
    mlflow_uri: str | None = Field(None, description="MLflow tracking server")
    mlflow_page: str | None = Field(None, description="where a browser finds MLflow, if that is not mlflow_uri")
    prefect_api_url: str | None = Field(None, description="Prefect API, ending in /api")
    sources: str = Field(
        "", description="folders and s3://BUCKET/PREFIX, with commas between, that sources and outputs may lie in"
    )
    s3_connect_timeout: float = Field(5, gt=0, description="seconds for a connection to S3 to come about")
    s3_read_timeout: float = Field(15, gt=0, description="seconds of silence after which a connection is given up")
    s3_patience: float = Field(30, gt=0, description="seconds without progress for which faults of S3 are borne")

    @field_validator("s3_endpoint", "mlflow_uri", "mlflow_page", "prefect_api_url", mode="before")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("s3_endpoint", "mlflow_uri", "mlflow_page", "prefect_api_url")
    @classmethod
    def _names_nobody(cls, value: str | None) -> str | None:
        """An address is shown on pages and in logs."""
        if value and "@" in urlsplit(value).netloc:
            raise ValueError(
                "take user and password out of the address and set SEMIVL_S3_ACCESS_KEY and SEMIVL_S3_SECRET_KEY, "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or PREFECT_API_AUTH_STRING"
            )
        return value

    @property
    def allowed_sources(self) -> tuple[str, ...]:
        """The places of `sources`; empty where any will do."""
        return tuple(filter(None, map(str.strip, self.sources.split(","))))


S = TypeVar("S", bound=BaseSettings)


@cache
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        ConfigError: CONF004, a setting has a value that cannot be used.
    """
    own = users(Settings)
    merged = read(Settings, home() / "services.env", env_file())
    if "s3_endpoint" not in own.model_fields_set:
        return merged
    # The keys of the embedded S3 must never be sent to somebody else's.
    return merged.model_copy(update={"s3_access_key": own.s3_access_key, "s3_secret_key": own.s3_secret_key})


def env_file() -> Path:
    """The file with the user's settings."""
    return Path(os.environ.get("SEMIVL_ENV_FILE", ROOT / ".env"))


def users(model: type[S]) -> S:
    """What the user has set in the environment and `.env`, without what `semivl up` wrote."""
    return read(model, env_file())


def read(model: type[S], *files: Path) -> S:
    """The settings in the environment and in `files`, the last of them the strongest; CONF004 as `settings`."""
    try:
        return model(_env_file=files)  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        names = ", ".join(f"SEMIVL_{'_'.join(map(str, e['loc'])).upper()} ({e['msg']})" for e in error.errors())
        raise ConfigError(
            "CONF004", f"settings cannot be used: {names}.", "Mend them in the environment or .env."
        ) from None
