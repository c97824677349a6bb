"""What can go wrong with one request to S3: whether it may pass, and the error that users are told if it stays."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from semivl.errors import StoreError
from semivl.settings import Settings

_CREDENTIALS = {
    "AccessDenied", "ExpiredToken", "Forbidden", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}  # fmt: skip
_HERE_ALREADY = {"BucketAlreadyExists", "BucketAlreadyOwnedByYou"}
_PASSING_STATUS = {408, 409, 429, 500, 502, 503, 504}
"""409 is AWS' ConditionalRequestConflict: nobody has won"""
_PASSING = {
    "BadDigest", "IncompleteBody", "InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling",
    "ThrottlingException", "XAmzContentSHA256Mismatch",
}  # fmt: skip
"""faults of the way that S3 answers with status 400; BadDigest: what arrived is not what was sent"""


class RequestError(Exception):
    """One request that failed."""

    def __init__(self, error: StoreError, passes: bool, status: int = 0, refused: bool = False) -> None:
        """`passes`: another try may succeed. `status`: S3's answer, 0 where there was none. `refused`: nobody listens
        at the address, which is seldom mended by waiting."""
        super().__init__(error)
        self.error, self.passes, self.status, self.refused = error, passes, status, refused

    @property
    def lost(self) -> bool:
        """The condition of a read or a write did not hold."""
        return self.status == 412


class Place:
    """Where requests go, for the words of errors. Settings, the bucket, and the key where there is one."""

    def __init__(self, settings: Settings, bucket: str, key: str) -> None:
        self.bucket, self.key = bucket, key
        self.endpoint = settings.s3_endpoint or f"AWS ({settings.s3_region}; SEMIVL_S3_ENDPOINT is not set)"

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@contextmanager
def faults(place: Place) -> Iterator[None]:
    """Turns what boto3 raises into a RequestError."""
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except boto.ClientError as error:
        raise _answered(place, error) from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError):
        raise RequestError(_no_credentials(place, "there are none"), passes=False) from None
    except (boto.EndpointConnectionError, boto.SSLError, boto.ProxyConnectionError) as error:
        raise RequestError(unreachable(place, error), passes=True, refused=True) from None
    except (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError) as error:
        raise RequestError(unreachable(place, error), passes=True) from None
    except (ResponseParserError, HTTPError) as error:  # an answer cut off or spoilt on its way
        raise RequestError(unreachable(place, error), passes=True) from None
    except boto.ParamValidationError as error:
        raise RequestError(_refusal(place, error), passes=False) from None
    except (boto.BotoCoreError, ValueError) as error:
        raise RequestError(unreachable(place, error), passes=False) from None


def unreachable(place: Place, why: Exception | str) -> StoreError:
    return StoreError(
        "STORE001",
        f"S3 cannot be reached at {place.endpoint} ({' '.join(str(why).split())}).",
        "Start the embedded services with `semivl up`, or mend SEMIVL_S3_ENDPOINT.",
    )


def absent(place: Place) -> StoreError:
    return StoreError("STORE003", f"there is no {place}.", "Run the stage that writes it, or mend the name.")


def damaged(place: Place) -> StoreError:
    return StoreError(
        "STORE007",
        f"{place} is damaged: its bytes are not those that were put.",
        "Restore it from a backup; or delete it and run the stage that writes it again.",
    )


def misarrived(place: Place) -> StoreError:
    return StoreError(
        "STORE008",
        f"S3 at {place.endpoint} keeps other bytes of {place} than were sent.",
        "Look at the network and at the log of the S3 server; use https.",
    )


def too_large(place: Place, size: int) -> StoreError:
    return StoreError(
        "STORE009",
        f"{place} would have {size / (1 << 30):.1f} GiB; S3 takes 5 GiB at once.",
        "Write smaller objects: lower `shard_samples` in the experiment's data.",
    )


def _answered(place: Place, error: Any) -> RequestError:
    """The fault that S3 itself names. Its words may have been spoilt on their way, hence the status before the code."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.response.get("Error", {}).get("Code"))
    if status == 412:
        return RequestError(_refusal(place, error), passes=True, status=status)
    if code in _HERE_ALREADY:
        return RequestError(_refusal(place, error), passes=False, status=status)
    if status in _PASSING_STATUS or code in _PASSING:
        return RequestError(_failing(place, error), passes=True, status=status)
    if status in (401, 403) or code in _CREDENTIALS:
        return RequestError(_no_credentials(place, code), passes=False, status=status)
    if code == "NoSuchBucket" or (status == 404 and not place.key):
        gone = f"there is no bucket {place.bucket} at {place.endpoint}."
        return RequestError(StoreError("STORE004", gone, "Mend SEMIVL_S3_BUCKET."), passes=False, status=status)
    if status == 404:
        return RequestError(absent(place), passes=False, status=status)
    return RequestError(_refusal(place, error), passes=False, status=status)


def _failing(place: Place, error: Exception) -> StoreError:
    return StoreError(
        "STORE006",
        f"S3 at {place.endpoint} keeps failing ({' '.join(str(error).split())}).",
        "Try again later; if it lasts, look at the log of the S3 server.",
    )


def _refusal(place: Place, error: Exception) -> StoreError:
    return StoreError("STORE005", f"S3 refused {place}: {error}.", "Look at the log of the S3 server; try again.")


def _no_credentials(place: Place, why: str) -> StoreError:
    return StoreError(
        "STORE002",
        f"S3 at {place.endpoint} refuses the credentials ({why}).",
        "Run `semivl up`, or mend SEMIVL_S3_ACCESS_KEY and SEMIVL_S3_SECRET_KEY.",
    )
