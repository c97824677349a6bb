"""Validation: a Great Expectations suite over a snapshot's index, and what it found.

The checks at ingest look at one file; this looks at the whole. Its pages (Data Docs) and its result lie
beside the snapshot, and a training asks for it before it starts: a snapshot that failed is not learned from.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semivl.config import Record
from semivl.data.rules import Rule, class_rules, class_table, sample_rules, sample_table
from semivl.data.snapshot import Snapshot
from semivl.data.store import Store
from semivl.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


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
    """S3 key of each suite's result page; `Store.link` gives an address for a browser"""


def validate(store: Store, snapshot: Snapshot) -> Validation:
    """Runs the suite, puts the Data Docs and the result into the store, and gives the result."""
    manifest = snapshot.manifest
    prefix = f"datasets/{manifest.dataset}/docs/{manifest.version}/"
    with tempfile.TemporaryDirectory() as folder:
        faults, checked = _run_suites(snapshot, Path(folder))
        _put_folder(store, Path(folder), prefix)
        pages = {page.parts[1]: f"{prefix}{page}" for page in _result_pages(Path(folder))}
    result = Validation(
        dataset=manifest.dataset,
        version=manifest.version,
        success=not any(rule.severity == "critical" for rule, _ in faults),
        failed=tuple(words for rule, words in faults if rule.severity == "critical"),
        warnings=tuple(words for rule, words in faults if rule.severity == "warning"),
        checked=checked,
        docs=f"{prefix}index.html",
        pages=pages,
    )
    store.put(_key(manifest.dataset, manifest.version), result.model_dump_json(indent=1).encode())
    return result


def validation_of(store: Store, dataset: str, version: str) -> Validation | None:
    """The snapshot's validation; None where it was not validated yet."""
    found = store.get_with_etag(_key(dataset, version))
    return Validation.model_validate_json(found[0]) if found else None


def require_valid(store: Store, snapshot: Snapshot) -> Validation:
    """The snapshot's validation, which it passed.

    Raises:
        DataError: DATA301 it was not validated, DATA302 it failed.
    """
    manifest = snapshot.manifest
    named = f"snapshot {manifest.version} of {manifest.dataset}"
    found = validation_of(store, manifest.dataset, manifest.version)
    if found is None:
        raise DataError("DATA301", f"{named} was not validated.", "Run semivl-validate.")
    if not found.success:
        raise DataError(
            "DATA302",
            f"{named} failed its validation: {'; '.join(found.failed)}.",
            f"Mend the source, ingest, and run semivl-validate; details in {store.address(found.docs)}.",
        )
    return found


def _key(dataset: str, version: str) -> str:
    return f"datasets/{dataset}/validations/{version}.json"


def _run_suites(snapshot: Snapshot, folder: Path) -> tuple[list[tuple[Rule, str]], int]:
    """The rules that were not met, in words, and how many were looked at; the pages go to `folder`."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    context.add_data_docs_site(
        "pages",
        {
            "class_name": "SiteBuilder",
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    suites = {
        "samples": (sample_table(snapshot), sample_rules(len(snapshot.manifest.classes))),
        "classes": (class_table(snapshot), class_rules()),
    }
    source = context.data_sources.add_pandas(snapshot.manifest.dataset)
    faults = [
        fault for name, (table, rules) in suites.items() for fault in _run_suite(context, source, name, table, rules)
    ]
    context.build_data_docs(site_names=["pages"])
    return faults, sum(len(rules) for _, rules in suites.values())


def _result_pages(folder: Path) -> list[Path]:
    """The pages validations/SUITE/.../*.html, relative to the folder of the Data Docs."""
    return sorted(page.relative_to(folder) for page in (folder / "validations").rglob("*.html"))


def _run_suite(
    context: Any, source: Any, name: str, table: "pd.DataFrame", rules: list[Rule]
) -> Iterator[tuple[Rule, str]]:
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction

    batch = source.add_dataframe_asset(name=name).add_batch_definition_whole_dataframe("whole")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=[_expectation(rule) for rule in rules]))
    definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
    pages: Any = UpdateDataDocsAction(name="pages", site_names=["pages"])
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=name,
            validation_definitions=[context.validation_definitions.add(definition)],
            actions=[pages],
            result_format={"result_format": "SUMMARY", "unexpected_index_column_names": ["name"]},
        )
    )
    by_code = {rule.code: rule for rule in rules}
    for outcome in checkpoint.run(batch_parameters={"dataframe": table}).run_results.values():
        for result in outcome.results:
            if not result.success:
                rule = by_code[result.expectation_config.meta["code"]]
                yield rule, _words(rule, result)


def _expectation(rule: Rule) -> Any:
    import great_expectations.expectations as gxe

    kind: Callable[..., Any] = getattr(gxe, f"Expect{rule.expectation}")
    described = f"{rule.code} {rule.demand}"
    return kind(**rule.arguments, severity=rule.severity, description=described, meta={"code": rule.code})


def _words(rule: Rule, result: Any) -> str:
    if (result.exception_info or {}).get("raised_exception"):
        return f"{rule.code} {rule.demand}: could not be checked"
    found = result.result
    if "unexpected_count" not in found:
        return f"{rule.code} {rule.demand}: there is none"
    names = ", ".join(str(place["name"]) for place in found.get("partial_unexpected_index_list") or ())
    return f"{rule.code} {rule.demand}: not so for {found['unexpected_count']} ({names})"


def _put_folder(store: Store, folder: Path, prefix: str) -> None:
    """Puts the folder's files under the prefix, the first page last; what an earlier run left there goes."""
    files = {prefix + p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for key, path in sorted(files.items(), key=lambda item: item[1] == folder / "index.html"):
        store.put(key, path)
    for key in list(store.list(prefix)):
        if key not in files:
            store.delete(key)
