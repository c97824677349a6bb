"""These tests stop and kill services; the other tests get them back."""

from collections.abc import Iterator

import pytest

from semivl.services import supervisor


@pytest.fixture(scope="module", autouse=True)
def what_ran_runs_again() -> Iterator[None]:
    before = [state.name for state in supervisor.status() if state.state == "running"]
    yield
    supervisor.up(before)
