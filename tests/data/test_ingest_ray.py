"""An ingest on a Ray cluster of two nodes gives what one process gives, byte for byte."""

from dataclasses import asdict

import pytest

from flows.ingest import build_shard, runner_for
from semivl.config import ComputeConfig
from semivl.data import ingest as rooms
from semivl.data import snapshot
from semivl.errors import ConfigError


@pytest.fixture
def cluster(environment, monkeypatch):
    """Two nodes on this machine, which nothing else may join; shut down whatever happens."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.mark.slow
def test_two_ray_nodes_give_what_one_process_gives(prefect_server, cluster, config, classes, store):
    from prefect import flow

    alone = config.model_copy(update={"dataset": f"{config.dataset}-alone"})
    expected = rooms.ingest(alone, classes, workers=1)

    address = cluster.address  # a flow is sent to the nodes with all that it names

    @flow
    def on_ray() -> list:
        planned = rooms.plan(config, classes)
        with runner_for(ComputeConfig(ray=address), len(planned.groups)) as runner:  # pyright: ignore
            asked = [{"config": config, "classes": classes, "group": group} for group in planned.groups]
            futures = [runner.submit(build_shard, parameters) for parameters in asked]
            built = [future.result() for future in futures]
        return [rooms.commit(config, classes, planned, built)]

    (manifest,) = on_ray()
    assert manifest.shards == expected.shards
    found = [[asdict(r) for r in snapshot.read(store, d.dataset).rows()] for d in (config, alone)]
    assert found[0] == found[1]


def test_cluster_without_prefect_ray_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "prefect_ray", None)
    with pytest.raises(ConfigError) as raised:
        runner_for(ComputeConfig(ray="10.0.0.1:6379"), 3)  # pyright: ignore
    assert raised.value.code == "CONF028"
