"""A store as tests look at it: behind a proxy that spoils requests, and by the error that it raises."""

from collections.abc import Callable
from typing import Any

import pytest

from semivl.data.store import Store
from semivl.errors import StoreError
from tests.faults import FaultProxy


def behind(store: Store, proxy: FaultProxy, **changes: float) -> Store:
    """The same bucket through the proxy; what goes wrong shows soon."""
    timeouts = {"s3_read_timeout": 0.3, "s3_connect_timeout": 1, "s3_patience": 20}
    return Store(store.settings.model_copy(update={"s3_endpoint": proxy.address, **timeouts, **changes}))


def failure(action: Callable, *arguments: Any) -> StoreError:
    """What the action raises."""
    with pytest.raises(StoreError) as raised:
        action(*arguments)
    return raised.value
