"""An ingest and an epoch of training through a proxy that spoils one request in twenty: every byte is right."""

import pytest

from semivl.data import snapshot
from semivl.data.cache import ShardCache, read_sample
from semivl.data.ingest import ingest
from semivl.data.store import open_store
from semivl.settings import settings
from tests.faults import KINDS, FaultProxy


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ingest_and_epoch_get_through(kind, config, classes, make, store, tmp_path, monkeypatch):
    source = make.source(tmp_path / "many", labelled=20, evaluation=10, unlabelled=30)
    config = config.model_copy(update={"source": source, "shard_samples": 1})
    with FaultProxy(store.settings.s3_endpoint, {kind: 0.05}, seed=5, stall=2) as proxy:
        monkeypatch.setenv("SEMIVL_S3_ENDPOINT", proxy.address)
        monkeypatch.setenv("SEMIVL_S3_READ_TIMEOUT", "0.5")
        settings.cache_clear()
        manifest = ingest(config, classes)
        snap = snapshot.read(open_store(), config.dataset)
        cache = ShardCache(open_store(), config.dataset, tmp_path / "cache")
        read = {row.source: read_sample(cache, row) for row in snap.rows()}
    assert manifest.samples == len(read) == 60
    for name, (image, mask) in read.items():
        assert image == (source / name).read_bytes()
        drawn = source / "masks" / f"{(source / name).stem}.png"
        assert mask == (drawn.read_bytes() if drawn.exists() else None)
    assert len(proxy.requests) > 150
    assert proxy.injected[kind] >= (1 if kind == "unknown_checksum" else 2)
    assert snapshot.read(store, config.dataset).manifest == manifest
