"""Which faults are tried again, and how trainings keep out of each other's way."""

import logging
import threading

import pytest
from prefect.states import Failed

from flows.common import artifact_key, may_pass
from flows.train import alone
from semivl.data.store import Store
from semivl.errors import DataError, StoreError
from semivl.settings import Settings
from tests.conftest import free_port


def tried_again(error: Exception) -> bool:
    return may_pass(None, None, Failed(data=error))


def raised(call) -> Exception:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def test_store_that_does_not_answer_is_asked_again():
    store = Store(Settings(s3_endpoint=f"http://127.0.0.1:{free_port()}", s3_access_key="k", s3_secret_key="s"))
    error = raised(lambda: store.get("x"))
    assert isinstance(error, StoreError)
    assert tried_again(error)


def test_mlflow_that_does_not_answer_is_asked_again(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from mlflow import MlflowClient

    assert tried_again(raised(lambda: MlflowClient(f"http://127.0.0.1:{free_port()}").get_run("x")))


@pytest.mark.parametrize(
    "error", [DataError("DATA101", "no folder.", "Mend it."), StoreError("STORE002", "keys.", "Mend."), ValueError()]
)
def test_fault_that_stays_is_not_tried_again(error):
    assert not tried_again(error)


def test_second_training_of_a_key_waits_and_says_so(tmp_path, caplog):
    order, inside = [], threading.Event()

    def second() -> None:
        with alone(tmp_path):
            order.append("second")

    with caplog.at_level(logging.INFO, "semivl"):
        with alone(tmp_path):
            thread = threading.Thread(target=second)
            thread.start()
            inside.wait(0.5)
            order.append("first")
        thread.join(10)
    assert order == ["first", "second"]
    assert "waiting for its end" in caplog.text


def test_artifact_keys_are_such_as_prefect_takes():
    assert artifact_key("scores", "My_Photos 2") == "scores-my-photos-2"
