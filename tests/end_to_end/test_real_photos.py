"""The data plane on real photos, where SEMIVL_REAL_DATA names the folder that holds voc2012-subset/."""

import os

import pytest

from semivl.config import load
from semivl.data.ingest import ingest
from semivl.data.quality import validate
from semivl.data.snapshot import read
from semivl.data.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.real_data]


def test_voc_subset_becomes_a_valid_snapshot_and_stays_the_same(store: Store):
    config = load("voc-subset", {"data": {"source": f"{os.environ['SEMIVL_REAL_DATA']}/voc2012-subset"}})
    made = ingest(config.data, config.classes)
    assert made.quarantined == 0
    assert {name: made.counts[name] for name in ("train", "val", "train/mask")} == {
        "train": 3131,
        "val": 445,
        "train/mask": 31,
    }
    found = validate(store, read(store, made.dataset, made.version))
    assert found.success, found.failed
    assert ingest(config.data, config.classes).version == made.version
