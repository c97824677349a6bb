"""The line of champions: one object in S3 a reign, numbered from 1, put where none of that number is.

It is the truth about who is champion; MLflow's alias follows it. S3 takes one object of a name and refuses the second,
so of any number of promotions and rollbacks at once one wins a number, and the others see that they lost. The alias is
last-write-wins: whoever sets it looks at the line again afterwards, and who is killed before that leaves an alias that
the next look at the champion mends.
"""

import logging
from datetime import UTC, datetime
from typing import Literal

from semivl.config import Record
from semivl.data.store import Store
from semivl.registry.package import alias_version, model_version
from semivl.registry.tracking import client

_log = logging.getLogger(__name__)
CHAMPION = "champion"


class Reign(Record):
    """One version's time as champion, until the next reign begins."""

    model: str
    number: int
    version: int
    before: int | None
    """the version that reigned before"""
    kind: Literal["promotion", "rollback", "adoption"]
    """adoption: the alias stood in MLflow before there was a line"""
    reason: str
    by: str | None = None
    """the person who approved it or went back"""
    since: str
    decision: str | None = None
    """key of the gate's record; a promotion has one"""


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def reigns(store: Store, model: str) -> list[Reign]:
    """All reigns, the first one first."""
    return [Reign.model_validate_json(store.get(key)) for key in store.list(_folder(model))]


def reign_of(store: Store, model: str, number: int) -> Reign | None:
    """The reign of that number."""
    found = store.get_with_etag(_key(model, number))
    return Reign.model_validate_json(found[0]) if found else None


def champion(store: Store, model: str) -> Reign | None:
    """The reign of now, which the alias then names too; None before the first champion."""
    if _last(store, model) is None:
        _adopt(store, model)
    return follow(store, model)


def crown(store: Store, reign: Reign) -> bool:
    """Begins the reign; False where another one of its number had begun before."""
    return store.put_if_absent(_key(reign.model, reign.number), reign.model_dump_json(indent=1).encode())


def follow(store: Store, model: str) -> Reign | None:
    """Lets the alias name the version that reigns; the reign.

    Raises:
        RegistryError: REG004 the version is no longer in the registry.
    """
    while True:
        reign = _last(store, model)
        named = alias_version(model, CHAMPION)
        if reign is None or named == reign.version:
            return reign
        _log.info("the alias champion of %s goes from version %s to %d", model, named, reign.version)
        model_version(model, reign.version)
        client().set_registered_model_alias(model, CHAMPION, str(reign.version))


def _adopt(store: Store, model: str) -> None:
    """Begins the line with the champion that MLflow names, where it names one."""
    version = alias_version(model, CHAMPION)
    if version is None:
        return
    reason = "was champion in MLflow before the gate kept records"
    crown(
        store, Reign(model=model, number=1, version=version, before=None, kind="adoption", reason=reason, since=now())
    )


def _last(store: Store, model: str) -> Reign | None:
    key = max(store.list(_folder(model)), default=None)
    return Reign.model_validate_json(store.get(key)) if key else None


def _folder(model: str) -> str:
    return f"champions/{model}/"


def _key(model: str, number: int) -> str:
    return f"{_folder(model)}{number:08d}.json"
