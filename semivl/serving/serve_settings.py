"""What the server of a model takes: SEMIVL_SERVE_... in its environment."""

from functools import cache

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from semivl.settings import env_file, read, settings


class ServeSettings(BaseSettings):
    """Bounds of requests and of what is held in memory for them."""

    model_config = SettingsConfigDict(env_prefix="SEMIVL_SERVE_", extra="ignore", frozen=True)

    buckets: str | None = Field(
        None, description="buckets that s3:// addresses may name, with commas between; the configured one where unset"
    )
    pixels: int = Field(16_000_000, ge=1, description="of all images of a request")
    images: int = Field(64, ge=1, description="of a request")
    bytes: int = Field(32_000_000, ge=1, description="of a request's body, and of all its images")
    waiting_bytes: int = Field(512_000_000, ge=1, description="of all bodies that wait or are answered")
    concurrency: int = Field(1, ge=1, description="requests that are predicted at once; the others wait")
    file_seconds: float = Field(5, gt=0, description="CPU seconds that checking one image may take")

    @property
    def allowed_buckets(self) -> frozenset[str]:
        if self.buckets is None:
            return frozenset({settings().s3_bucket})
        return frozenset(name.strip() for name in self.buckets.split(",") if name.strip())


UNBOUNDED = {"pixels": 10**12, "images": 10**9, "bytes": 10**12}
"""of a call from Python, which has its images in memory anyhow; each of them is still bounded as at ingest"""


@cache
def serve_settings() -> ServeSettings:
    """The settings of this process, read once.

    Raises:
        ConfigError: CONF004 a value that cannot be used.
    """
    return read(ServeSettings, env_file())
