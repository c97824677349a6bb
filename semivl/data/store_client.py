"""The boto3 client, as every store uses it."""

from typing import Any
from urllib.parse import urlsplit

from semivl.settings import Settings


def make_client(chosen: Settings) -> Any:
    """A client that tries once and tells: the store decides what is tried again, and for how long."""
    from boto3.session import Session
    from botocore.config import Config

    access, secret = chosen.s3_access_key, chosen.s3_secret_key
    return Session().client(
        "s3",
        endpoint_url=chosen.s3_endpoint,
        region_name=chosen.s3_region,
        aws_access_key_id=access.get_secret_value() if access else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            connect_timeout=chosen.s3_connect_timeout,
            read_timeout=chosen.s3_read_timeout,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=16,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4",  # boto3 would sign links in the old way, which some servers refuse
            s3=_dialect(chosen.s3_endpoint),
            proxies={} if _on_this_machine(chosen.s3_endpoint) else None,  # else the environment's proxy
        ),
    )


def _dialect(endpoint: str | None) -> dict[str, Any] | None:
    if not endpoint:
        return None
    if not _on_this_machine(endpoint):
        return {"addressing_style": "path"}
    # Hashing a body again to sign it brings nothing here: its checksum is a signed header.
    return {"addressing_style": "path", "payload_signing_enabled": False}


def _on_this_machine(endpoint: str | None) -> bool:
    host = urlsplit(endpoint or "").hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
