"""Validation: a suite of expectations over a snapshot's index, and what it found.

The checks at ingest look at one file; this looks at the whole. Its pages (Data Docs) and its result lie beside the
snapshot, and a training asks for it before it starts: a snapshot that failed is not learned from. A suite that was
edited since means validating again.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from semivl.config import Classes, Record, Rule, Suite, load_suite
from semivl.data.data_docs import Facts, remedies, write_pages
from semivl.data.quality_pairs import FARTHEST, find_alike
from semivl.data.quality_summary import left_out, summary
from semivl.data.quality_tables import class_table, sample_table
from semivl.data.rules import Outcome, require_usable, run_rules, takes
from semivl.data.snapshot import Snapshot, read
from semivl.data.store import Store
from semivl.errors import DataError, StoreError

if TYPE_CHECKING:
    import pandas as pd

_GONE = {"DATA202", "DATA203", "STORE003"}


class Validation(Record):
    """What the suite found in one snapshot."""

    dataset: str
    version: str
    success: bool
    failed: tuple[str, ...]
    """each expectation that was not met, with its code, in words"""
    warnings: tuple[str, ...]
    """the same for those that do not keep a training from starting"""
    checked: int
    """expectations that were looked at"""
    docs: str
    """S3 key of the Data Docs' first page"""
    pages: dict[str, str]
    """S3 key of each page; `Store.link` gives an address for a browser"""
    suite: str = ""
    """digest of the suite; empty in validations of before 0.2, which are made again"""
    summary: tuple[str, ...] = ()
    """what the snapshot holds and what changed since its parent, in sentences"""
    remedies: dict[str, str] = Field(default_factory=dict)
    """what to do, by the code of what was not met"""
    not_compared: tuple[str, ...] = ()
    """expectations that had nothing to look at, such as no parent, and so count as met; in words"""


def validate(store: Store, snapshot: Snapshot, suite: Suite | None = None) -> Validation:
    """Runs the suite (conf/suite/samples.yaml where None), puts the Data Docs and the result into the store.

    Raises:
        ConfigError: CONF003 the suite has a rule that cannot be run; nothing was looked at.
    """
    suite = suite or load_suite()
    require_usable(suite)
    facts = _facts(store, snapshot, suite)
    prefix = f"datasets/{snapshot.manifest.dataset}/docs/{snapshot.manifest.version}/"
    with tempfile.TemporaryDirectory() as folder:
        pages = write_pages(Path(folder), facts, store)
        _put_folder(store, Path(folder), prefix)
    unmet = {severity: tuple(str(o) for o in facts.unmet(severity)) for severity in ("critical", "warning")}
    result = Validation(
        dataset=snapshot.manifest.dataset,
        version=snapshot.manifest.version,
        success=not unmet["critical"],
        failed=unmet["critical"],
        warnings=unmet["warning"],
        checked=len(facts.outcomes),
        docs=f"{prefix}index.html",
        pages={name: prefix + page for name, page in pages.items()},
        suite=suite.digest,
        summary=facts.summary,
        remedies=remedies(outcome.code for outcome in facts.outcomes if not outcome.met),
        not_compared=tuple(str(outcome) for outcome in facts.outcomes if not outcome.compared),
    )
    store.put(_key(result.dataset, result.version), result.model_dump_json(indent=1).encode())
    return result


def validation_of(store: Store, dataset: str, version: str) -> Validation | None:
    """The snapshot's validation; None where it was not validated yet."""
    found = store.get_with_etag(_key(dataset, version))
    return Validation.model_validate_json(found[0]) if found else None


def require_valid(store: Store, snapshot: Snapshot, suite: Suite | None = None) -> Validation:
    """The snapshot's validation by the suite, which it passed.

    Raises:
        DataError: DATA301 it was not validated, DATA302 it failed, DATA303 another suite was run, or this one before
            it was edited.
    """
    manifest = snapshot.manifest
    named = f"snapshot {manifest.version} of {manifest.dataset}"
    found = validation_of(store, manifest.dataset, manifest.version)
    if found is None:
        raise DataError("DATA301", f"{named} was not validated.", "Run semivl-validate.")
    if suite and found.suite != suite.digest:
        raise DataError("DATA303", f"{named} was validated by another suite than today's.", "Run semivl-validate.")
    if not found.success:
        raise DataError(
            "DATA302",
            f"{named} failed its validation: {'; '.join(found.failed)}.",
            f"Mend the source, ingest, and run semivl-validate; details in {store.address(found.docs)}.",
        )
    return found


def _key(dataset: str, version: str) -> str:
    return f"datasets/{dataset}/validations/{version}.json"


def _facts(store: Store, snapshot: Snapshot, suite: Suite) -> Facts:
    """All that the pages and the result are made of."""
    parent = _parent(store, snapshot)
    distances = [
        int(rule.arguments.get("max_distance", FARTHEST)) for rule in suite.rules.values() if rule.table == "pairs"
    ]
    alike = find_alike(snapshot, max(distances, default=-1))
    tables = {"samples": sample_table(snapshot), "classes": class_table(snapshot, parent), "pairs": alike.table}
    refused = left_out(store, snapshot.manifest)
    return Facts(
        manifest=snapshot.manifest,
        suite=suite,
        outcomes=_outcomes(suite, tables, snapshot, parent),
        summary=summary(snapshot, parent, tables["classes"], alike, refused),
        alike=alike,
        left_out=refused,
        index=snapshot.index,
    )


def _outcomes(
    suite: Suite, tables: "dict[str, pd.DataFrame]", snapshot: Snapshot, parent: Snapshot | None
) -> tuple[Outcome, ...]:
    """The outcomes in the order of the suite."""
    before = sample_table(parent) if parent else None
    found: dict[str, Outcome] = {}
    for name, table in tables.items():
        rules = {code: rule for code, rule in suite.rules.items() if rule.table == name}
        given = {code: _given(rule, snapshot.manifest.classes, before) for code, rule in rules.items()}
        found |= run_rules(rules, table, given) if rules else {}
    return tuple(found[code] for code in suite.rules)


def _given(rule: Rule, classes: Classes, before: "pd.DataFrame | None") -> dict[str, Any]:
    """The arguments of our expectations that come from the snapshots."""
    import pandas as pd

    from semivl.data.expectations import quantiles

    given: dict[str, Any] = {}
    if takes(rule, "phrases"):
        given["phrases"] = sorted({phrase for c in classes.classes for phrase in (c.name, *c.definitions)})
    if takes(rule, "parent_quantiles") and before is not None:
        values = pd.Series(pd.to_numeric(before[rule.arguments["column"]], errors="coerce"))
        given["parent_quantiles"] = quantiles(np.asarray(values, float))
    return given


def _parent(store: Store, snapshot: Snapshot) -> Snapshot | None:
    """The snapshot that this one grew from; None for the first, and where it is no longer kept."""
    if snapshot.manifest.parent is None:
        return None
    try:
        return read(store, snapshot.manifest.dataset, snapshot.manifest.parent)
    except (DataError, StoreError) as error:
        if error.code not in _GONE:
            raise
        return None


def _put_folder(store: Store, folder: Path, prefix: str) -> None:
    """Puts the folder's files under the prefix, the first page last; what an earlier run left there goes."""
    files = {prefix + p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for key, path in sorted(files.items(), key=lambda item: item[1] == folder / "index.html"):
        store.put(key, path)
    for key in list(store.list(prefix)):
        if key not in files:
            store.delete(key)
