"""A dataset name of its own for every test, so that what one training left is not found by the next."""

import uuid

import pytest


@pytest.fixture
def dataset() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"
