"""Data Docs: the pages of a validation, each complete in one file: nothing is fetched, with a network or without.

Great Expectations' own pages take styles and scripts from the net and put text into them as it is, file names and
captions too. These are made of its results and its words, and escape both. The same validation gives the same bytes.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semivl import __version__
from semivl.config import Suite
from semivl.data.decode import decode_image
from semivl.data.html import environment
from semivl.data.manifest import Manifest, snapshot_key
from semivl.data.quality_pairs import Alike
from semivl.data.quality_tables import COLUMNS
from semivl.data.rules import Outcome
from semivl.data.shards import shard_key
from semivl.data.store import Store
from semivl.data.tables import compute
from semivl.errors import StoreError
from semivl.settings import ROOT

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PAGES = {"expectations": "index.html", "near_duplicates": "near_duplicates.html", "quarantine": "quarantine.html"}
LISTED_FILES = 500
"""files of a code that the quarantine's page lists; the others are counted"""
LISTED_PAIRS = 1000
SHOWN_PAIRS = 24
"""pairs that are shown as pictures"""
_SIDE = 176
_CODE_LINE = re.compile(r"^\| ([A-Z]+[0-9]{3}) \| (.*) \| (.*) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Facts:
    """What is known of a validated snapshot."""

    manifest: Manifest
    suite: Suite
    outcomes: tuple[Outcome, ...]
    summary: tuple[str, ...]
    alike: Alike
    left_out: "pd.DataFrame"
    index: "pa.Table"

    def unmet(self, severity: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.met and outcome.rule.severity == severity]


def write_pages(folder: Path, facts: Facts, store: Store) -> dict[str, str]:
    """Writes the pages into the folder, and gives their files by name."""
    shared = {
        "manifest": facts.manifest,
        "pages": PAGES,
        "maker": f"semivl {__version__}, Great Expectations {version('great_expectations')}",
        "script": _SCRIPT,
        "script_hash": base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode(),
        "words": code_words(),
    }
    table = snapshot_key(facts.manifest.dataset, facts.manifest.version, "quarantine.parquet")
    details = {
        "expectations": {"facts": facts, "unmet": facts.unmet, "columns": COLUMNS},
        "near_duplicates": _pairs(facts, store),
        "quarantine": _quarantine(facts.left_out) | {"address": store.address(table)},
    }
    for name, file in PAGES.items():
        template = _environment().get_template(f"{name}.html.j2")
        (folder / file).write_text(template.render(**shared, page=name, **details[name]), encoding="utf-8")
    return PAGES


def remedies(codes: Iterable[str]) -> dict[str, str]:
    """What to do, by code, for the codes that docs/codes.md knows."""
    known = code_words()
    return {code: known[code][1] for code in codes if code in known}


@cache
def code_words() -> dict[str, tuple[str, str]]:
    """What each code means and what to do, by docs/codes.md; none where the book is not installed."""
    path = ROOT / "docs" / "codes.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {code: (means, do) for code, means, do in _CODE_LINE.findall(text)}


def _quarantine(left_out: "pd.DataFrame") -> dict[str, Any]:
    """The files left out by code, the most frequent code first."""
    groups = [
        {"code": code, "count": len(files), "files": files.head(LISTED_FILES).to_dict("records")}
        for code, files in left_out.sort_values(["code", "source"], kind="stable").groupby("code")
    ]
    return {"groups": sorted(groups, key=lambda group: -group["count"]), "total": len(left_out)}


def _pairs(facts: Facts, store: Store) -> dict[str, Any]:
    """The pairs of pictures that look alike, those across splits first."""
    table = facts.alike.table
    bits, across = table["across_splits"].fillna(table["within_split"]), table["across_splits"].notna()
    pairs = table.assign(bits=bits, across=across).head(LISTED_PAIRS).to_dict("records")
    for pair in pairs[:SHOWN_PAIRS]:
        pair["pictures"] = [_thumbnail(store, facts, str(pair[key])) for key in ("key", "other_key")]
    return {"pairs": pairs, "total": len(table), "alike": facts.alike, "shown": SHOWN_PAIRS}


def _thumbnail(store: Store, facts: Facts, key: str) -> str:
    """The sample's picture as a small JPEG in a data: address; empty where it cannot be read."""
    from PIL import Image

    pc = compute()

    row = facts.index.filter(pc.field("key") == key).slice(0, 1).to_pylist()[0]
    try:
        data = store.get(shard_key(facts.manifest.dataset, row["shard"]), row["image_offset"], row["image_bytes"])
        picture = Image.fromarray(decode_image(data))
    except (StoreError, OSError, ValueError):  # a page without a picture is better than none
        return ""
    picture.thumbnail((_SIDE, _SIDE))
    body = io.BytesIO()
    picture.save(body, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(body.getvalue()).decode()}"


@cache
def _environment() -> Any:
    made = environment(Path(__file__).parent / "templates")
    made.filters |= {"size": _size, "marked": _marked}
    return made


def _marked(text: str) -> Any:
    """The text of a document as HTML: what stands between backticks is code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  (escaped first)


def _size(count: float | None) -> str:
    """Bytes as a person reads them."""
    if count is None or count != count:
        return ""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


_SCRIPT = 'if (location.search.includes("X-Amz-")) document.documentElement.classList.add("alone")'
"""a signed link opens one page and none of its neighbours"""
