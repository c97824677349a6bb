"""Where sources and outputs may lie: what SEMIVL_SOURCES allows to whoever may start a run."""

from pathlib import Path

from semivl.errors import DataError
from semivl.settings import ROOT, home, settings


def require_allowed(place: str | Path) -> None:
    """Refuses a folder, file or s3://BUCKET/PREFIX outside of SEMIVL_SOURCES, DATA124; anything goes where it is empty.

    Links and `..` are followed first, so that none leads out. The folder of semivl itself is always allowed.
    """
    allowed = settings().allowed_sources
    if not allowed:
        return
    asked = _normal(str(place))
    if not any(f"{asked}/".startswith(f"{root}/") for root in (*map(_normal, allowed), str(home()))):
        what = f"{place} lies outside of what SEMIVL_SOURCES allows."
        raise DataError("DATA124", what, f"Name a place in {', '.join(allowed)}, or ask who runs the service for it.")


def _normal(place: str) -> str:
    """The place without links and detours; relative ones count from the checkout."""
    if place.startswith("s3://"):
        bucket, *parts = place.removeprefix("s3://").split("/")
        return "s3://" + "/".join([bucket, *(part for part in parts if part)])
    return str((ROOT / Path(place).expanduser()).resolve())
