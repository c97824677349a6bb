"""Work in the background: in order, little of it waiting, and no fault of it unheard."""

import threading

import pytest
import torch

from semivl.config import load
from semivl.data.store import Store
from semivl.errors import StoreError
from semivl.methods import create
from semivl.settings import settings
from semivl.training.background import Background
from semivl.training.observe import Unobserved
from semivl.training.step import build_optimizer
from semivl.training.trainer import Run
from tests.tiny import CLASSES, SHAPE, SIDE, tiny_batches, tiny_vlm


class BrokenError(Exception):
    """What goes wrong in these tests."""


def broken() -> None:
    raise BrokenError


def test_all_is_done_in_order_when_the_block_ends():
    done = []
    with Background(waiting=1) as background:
        for number in range(20):
            background.do(lambda n=number: done.append(n))
    assert done == list(range(20))


def test_who_brings_more_than_may_wait_waits_himself():
    go, brought = threading.Event(), []
    with Background(waiting=1) as background:

        def bring() -> None:
            for number in range(3):
                background.do(go.wait)
                brought.append(number)

        bringer = threading.Thread(target=bring)
        bringer.start()
        bringer.join(0.5)
        assert brought == [0, 1]  # one at work, one waiting
        go.set()
        bringer.join()
        assert brought == [0, 1, 2]


def test_a_fault_is_raised_at_the_next_call_and_once():
    with Background(waiting=1) as background:
        background.do(broken)
        with pytest.raises(BrokenError):
            background.wait()
        background.check()


def test_a_fault_of_the_last_piece_is_raised_when_the_block_ends():
    with pytest.raises(BrokenError), Background(waiting=1) as background:
        background.do(broken)


def test_the_blocks_own_fault_goes_before_the_backgrounds(caplog):
    with pytest.raises(ZeroDivisionError), Background(waiting=1) as background:
        background.do(broken)
        _ = 1 / 0
    assert "beside the fault that ends the training" in caplog.text


def test_training_whose_uploads_fail_ends_with_the_stores_error(tmp_path):
    config = load("demo-supervised", {"train": {"steps": 4, "batch": 2, "crop": SIDE, "checkpoint_every": 1},
                                      "method": {"settings": {"decoder": SHAPE.model_dump()}}})  # fmt: skip
    method = create(config.method)
    model = method.build(CLASSES, tiny_vlm(), True).train()
    nowhere = {"s3_endpoint": "http://127.0.0.1:9", "s3_patience": 0.1, "s3_connect_timeout": 0.2}
    store = Store(settings().model_copy(update=nowhere))
    optimizer = build_optimizer(model, config.train)
    run = Run(config, method, model, optimizer, torch.device("cpu"), Unobserved(), tmp_path, store, "key")
    with pytest.raises(StoreError) as caught:
        run.steps(0, [tiny_batches(seed=s) for s in range(4)], {})
    assert caught.value.code == "STORE001"
