"""The rules that a whole snapshot is held to, and the tables that they look at. `quality` runs them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from semivl.data.sample import SPLITS
from semivl.data.snapshot import Snapshot

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rule:
    """One expectation: its code, what it demands in words, its name in Great Expectations, its arguments."""

    code: str
    demand: str
    expectation: str
    arguments: dict[str, Any]
    severity: Literal["critical", "warning"] = "critical"


def sample_rules(classes: int) -> list[Rule]:
    """What holds for `sample_table` under a map of so many classes."""
    return [
        Rule("DATA311", "a training sample has a mask", *_sum_from("train_mask", 1)),
        Rule("DATA312", "there is an evaluation sample", *_sum_from("val", 1)),
        Rule("DATA313", "evaluation samples have a mask", *_among("val_supervision", "mask")),
        Rule("DATA314", "a key stands once", *_unique("key")),
        Rule("DATA315", "no key is in two splits", *_among("splits", 1)),
        Rule("DATA316", "content hashes differ", *_unique("sha256")),
        Rule("DATA317", "widths are positive", *_from("width", 1)),
        Rule("DATA318", "heights are positive", *_from("height", 1)),
        Rule("DATA319", "masks are counted by the class map", *_among("mask_classes", classes)),
        Rule("DATA320", "masks have labelled pixels", *_from("labelled", 1)),
        Rule("DATA321", "masks cover their image", *_among("uncovered", 0)),
        Rule("DATA322", "splits are train and val", *_among("split", "train", "val")),
    ]


def class_rules() -> list[Rule]:
    """What holds for `class_table`. Warnings: a language-guided model can name a class that no mask shows."""
    return [
        Rule("DATA331", "evaluated classes are in a training mask", *_empty("only_in_val"), "warning"),
        Rule("DATA332", "classes are in some mask", *_empty("in_no_mask"), "warning"),
    ]


def _sum_from(column: str, least: int) -> tuple[str, dict[str, Any]]:
    return "ColumnSumToBeBetween", {"column": column, "min_value": least}


def _from(column: str, least: int) -> tuple[str, dict[str, Any]]:
    return "ColumnValuesToBeBetween", {"column": column, "min_value": least}


def _among(column: str, *values: Any) -> tuple[str, dict[str, Any]]:
    return "ColumnValuesToBeInSet", {"column": column, "value_set": list(values)}


def _unique(column: str) -> tuple[str, dict[str, Any]]:
    return "ColumnValuesToBeUnique", {"column": column}


def _empty(column: str) -> tuple[str, dict[str, Any]]:
    return "ColumnValuesToBeNull", {"column": column}


def sample_table(snapshot: Snapshot) -> "pd.DataFrame":
    """A row a sample. What holds for masks alone is empty without one; the suite passes over empty cells."""
    columns = ["source", "key", "sha256", "split", "supervision", "width", "height", "pixels", "ignored"]
    table = snapshot.index.select(columns).to_pandas().rename(columns={"source": "name"})
    masked, val = table["supervision"] == "mask", table["split"] == "val"
    pixels = table.pop("pixels")
    labelled = pixels.map(sum)
    table["train_mask"] = (masked & ~val).astype(int)
    table["val"] = val.astype(int)
    table["val_supervision"] = table["supervision"].where(val)
    table["splits"] = table.groupby("key")["split"].transform("nunique")
    table["mask_classes"] = pixels.map(len).where(masked)
    table["labelled"] = labelled.where(masked)
    table["uncovered"] = (table["width"] * table["height"] - labelled - table["ignored"]).where(masked)
    return table


def class_table(snapshot: Snapshot) -> "pd.DataFrame":
    """A row a class: in how many masks of each split it is seen."""
    import pandas as pd

    names = snapshot.manifest.classes.names
    table = pd.DataFrame({"name": names})
    for split in SPLITS:
        masks = [row.pixels for row in snapshot.rows(split, "mask")]
        table[f"{split}_masks"] = [sum(any(p[i : i + 1]) for p in masks) for i in range(len(names))]
    missing = table["train_masks"] == 0
    table["only_in_val"] = table["name"].where(missing & (table["val_masks"] > 0))
    table["in_no_mask"] = table["name"].where(missing & (table["val_masks"] == 0))
    return table
