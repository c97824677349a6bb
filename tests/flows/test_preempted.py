"""A flow whose training SIGTERM ended is crashed for Prefect, which is what semivl-restart starts again."""

import subprocess
import sys

FLOW = """
from flows.common import semivl_flow
from semivl.errors import TrainingError

@semivl_flow("semivl-preempted", "A training that is asked to end.", run_name="preempted")
def preempted():
    raise TrainingError("TRAIN050", "the training was asked to end (SIGTERM); 7 steps are kept.", "Run it again.")

preempted()
"""


def test_flow_of_a_preempted_training_crashes(prefect_server):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    done = subprocess.run([sys.executable, "-c", FLOW], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    with get_client(sync_client=True) as client:
        named = FlowRunFilter(name=FlowRunFilterName(any_=["preempted"]))
        (run,) = client.read_flow_runs(flow_run_filter=named)
    assert run.state and run.state.is_crashed(), done.stderr[-2000:]
