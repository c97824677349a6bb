"""The store keeps the promises that the records rest on, on a real S3."""

import pickle
import socket
import threading
import time
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import SecretStr

from semivl.data.store import Store, open_store
from semivl.settings import settings
from tests.stores import failure


def other(store: Store, **changes) -> Store:
    return Store(store.settings.model_copy(update=changes))


@examples(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(min_size=1, max_size=5000), start=st.integers(0, 4999), length=st.integers(1, 5000))
def test_part_of_an_object_is_that_part_of_its_bytes(store, body, start, length):
    store.put("store/part", body)
    assert store.get("store/part") == body
    assert store.size("store/part") == len(body)
    start %= len(body)
    assert store.get("store/part", start, length) == body[start : start + length]
    assert store.get("store/part", start) == body[start:]
    assert store.get("store/part", length=length) == body[:length]


def test_file_goes_up_and_comes_down_whole(store, tmp_path):
    body = bytes(range(256)) * 20_000
    (tmp_path / "up").write_bytes(body)
    store.put("store/file", tmp_path / "up")
    store.download("store/file", tmp_path / "deep" / "down")
    assert (tmp_path / "deep" / "down").read_bytes() == body


def test_failed_download_leaves_no_file_and_keeps_the_old_one(store, tmp_path):
    (tmp_path / "kept").write_bytes(b"old")
    assert failure(store.download, "store/none", tmp_path / "kept").code == "STORE003"
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"old"


def test_what_is_absent(store):
    error = failure(store.get, "store/none")
    assert (error.code, "/store/none" in str(error)) == ("STORE003", True)
    assert (store.get_with_etag("store/none"), store.size("store/none")) == (None, None)
    assert not store.exists("store/none")
    store.delete("store/none")


def test_list_gives_all_pages_and_only_the_prefix(store):
    for i in range(7):
        store.put(f"store/list/{i}", b"x")
    store.put("store/listless", b"x")
    assert list(store.list("store/list/")) == [f"store/list/{i}" for i in range(7)]
    store.delete("store/list/3")
    assert not store.exists("store/list/3")


@pytest.mark.parametrize("kind", [bytes, Path])
def test_absent_is_written_once(store, tmp_path, kind):
    def body(content: bytes):
        (tmp_path / "body").write_bytes(content)
        return content if kind is bytes else tmp_path / "body"

    key = f"store/once-{kind.__name__}"
    assert store.put_if_absent(key, body(b"first"))
    assert not store.put_if_absent(key, body(b"second"))
    assert store.get(key) == b"first"


def test_match_moves_only_what_was_seen(store):
    assert not store.put_if_match("store/head", b"0", '"0123"')  # not there
    assert store.put_if_match("store/head", b"1", None)
    assert not store.put_if_match("store/head", b"2", None)  # no longer absent
    _, etag = store.get_with_etag("store/head")
    assert store.put_if_match("store/head", b"3", etag)
    assert not store.put_if_match("store/head", b"4", etag)  # moved meanwhile
    assert store.get("store/head") == b"3"


def test_one_of_many_writers_at_once_wins(store):
    def race(write) -> int:
        wins, ready = [], threading.Barrier(12)

        def run(name: int) -> None:
            ready.wait()
            if write(str(name).encode()):
                wins.append(name)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(wins)

    assert race(lambda body: store.put_if_absent("store/race", body)) == 1
    _, etag = store.get_with_etag("store/race")
    assert race(lambda body: store.put_if_match("store/race", b"moved " + body, etag)) == 1


def test_pages_are_told_to_be_pages(store):
    store.put("store/index.html", b"<p>")
    answer = store.client.head_object(Bucket=store.bucket, Key="store/index.html")
    assert answer["ContentType"] == "text/html"


def _read_in_child(store: Store, answers) -> None:
    answers.put(store.get("store/child"))


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_store_crosses_into_other_processes(store, way):
    store.put("store/child", b"seen")
    context = get_context(way)
    answers = context.Queue()
    child = context.Process(target=_read_in_child, args=(store, answers))
    child.start()
    assert answers.get(timeout=60) == b"seen"
    child.join()


def test_pickle_holds_no_connection(store):
    store.exists("store/any")
    again = pickle.loads(pickle.dumps(store))
    assert again._clients == {}
    assert again.exists("store/any") is False


def told_unreachable(store: Store, endpoint: str) -> None:
    begin = time.monotonic()
    error = failure(other(store, s3_endpoint=endpoint, s3_connect_timeout=1, s3_patience=4).ensure_bucket)
    assert time.monotonic() - begin < 10
    assert (error.code, endpoint in str(error), "semivl up" in str(error)) == ("STORE001", True, True)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no.such.host.invalid"])
def test_unreachable_store_is_told_fast(store, endpoint):
    told_unreachable(store, endpoint)


def test_host_that_never_answers_is_told_fast(store):
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # fills the queue: the kernel drops whoever comes next
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(silent.getsockname())
        told_unreachable(store, f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_store_on_this_machine_is_not_looked_for_through_a_proxy(store, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("no_proxy", raising=False)
    other(store).ensure_bucket()


def test_endpoint_that_is_no_address(store):
    assert failure(other(store, s3_endpoint="nonsense").exists, "a").code == "STORE001"


@pytest.mark.parametrize("changes", [{"s3_secret_key": SecretStr("wrong")}, {"s3_access_key": SecretStr("nobody")}])
def test_wrong_credentials_are_told_fast_and_not_shown(store, changes):
    begin = time.monotonic()
    wrong = other(store, **changes)
    for action in (
        wrong.ensure_bucket,
        lambda: wrong.get("a"),
        lambda: wrong.put("a", b""),
        lambda: wrong.exists("a"),
    ):
        error = failure(action)
        assert error.code == "STORE002"
        assert all(secret.get_secret_value() not in str(error) for secret in changes.values())
    assert time.monotonic() - begin < 10


def test_no_credentials_at_all(store, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert failure(other(store, s3_access_key=None, s3_secret_key=None).exists, "a").code == "STORE002"


def test_missing_bucket_is_told_and_made(store):
    fresh = other(store, s3_bucket="fresh-" + store.bucket)
    error = failure(fresh.get, "a")
    assert error.code in {"STORE003", "STORE004"}
    fresh.ensure_bucket()
    fresh.ensure_bucket()
    fresh.put("a", b"1")
    assert fresh.get("a") == b"1"


def test_open_store_follows_the_settings(environment, store):
    opened = open_store()
    assert opened.address("a") == store.address("a")
    assert open_store() is opened
    assert settings().s3_bucket == store.bucket
