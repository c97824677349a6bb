"""The store gets through what networks and busy servers do."""

import hashlib
import itertools
import json
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from semivl.data.store import Store
from tests.faults import KINDS, FaultProxy, Message
from tests.stores import behind, failure

BIG = bytes(range(256)) * 6000
"""1.5 MB, so that a body is many pieces"""


@pytest.fixture(scope="module")
def shared(new_store) -> Store:
    """A bucket for the tests that do not need one of their own: making one takes a second."""
    made = new_store()
    made.put("given/1", BIG)
    made.put("given/2", b"two")
    made.put("big", BIG * 4)
    return made


def proxy_of(store: Store, stall: float = 1.5, **chances: float) -> FaultProxy:
    assert store.settings.s3_endpoint
    return FaultProxy(store.settings.s3_endpoint, chances, seed=8, stall=stall)


def written(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    return path


def put_bytes(faulty: Store, true: Store, folder: Path, n: int) -> None:
    faulty.put(f"bytes/{n}", body := BIG[n:])
    assert true.get(f"bytes/{n}") == body


def put_file(faulty: Store, true: Store, folder: Path, n: int) -> None:
    faulty.put(f"file/{n}", written(folder / "up", body := BIG[n:]))
    assert true.get(f"file/{n}") == body


def put_if_absent(faulty: Store, true: Store, folder: Path, n: int) -> None:
    body = b"first %d" % n if n % 2 else written(folder / "up", b"first %d" % n)
    assert faulty.put_if_absent(f"absent/{n}", body)
    assert not faulty.put_if_absent(f"absent/{n}", b"second")
    assert true.get(f"absent/{n}") == b"first %d" % n


def put_if_match(faulty: Store, true: Store, folder: Path, n: int) -> None:
    assert faulty.put_if_match(f"match/{n}", b"0", None)
    _, etag = true.get_with_etag(f"match/{n}") or (b"", "")
    assert faulty.put_if_match(f"match/{n}", b"1", etag)
    assert not faulty.put_if_match(f"match/{n}", b"2", etag)
    assert not faulty.put_if_match(f"match/{n}", b"2", None)
    assert true.get(f"match/{n}") == b"1"


def get(faulty: Store, true: Store, folder: Path, n: int) -> None:
    assert faulty.get("given/1") == BIG
    assert failure(faulty.get, "given/none").code == "STORE003"


def get_part(faulty: Store, true: Store, folder: Path, n: int) -> None:
    assert faulty.get("given/1", 3, 1000 + n) == BIG[3 : 1003 + n]
    assert faulty.get("given/1", 5 + n) == BIG[5 + n :]


def get_with_etag(faulty: Store, true: Store, folder: Path, n: int) -> None:
    assert faulty.get_with_etag("given/1") == true.get_with_etag("given/1")
    assert faulty.get_with_etag("given/none") is None


def download(faulty: Store, true: Store, folder: Path, n: int) -> None:
    assert faulty.download("given/1", folder / "down" / "x") == hashlib.sha256(BIG).hexdigest()
    assert (folder / "down" / "x").read_bytes() == BIG
    assert [p.name for p in (folder / "down").iterdir()] == ["x"]


def look(faulty: Store, true: Store, folder: Path, n: int) -> None:
    assert (faulty.size("given/1"), faulty.size("given/none")) == (len(BIG), None)
    assert (faulty.exists("given/1"), faulty.exists("given/none")) == (True, False)


def listing(faulty: Store, true: Store, folder: Path, n: int) -> None:
    assert list(faulty.list("given/")) == ["given/1", "given/2"]
    assert [item.size for item in faulty.listed("given/")] == [len(BIG), 3]


def delete(faulty: Store, true: Store, folder: Path, n: int) -> None:
    true.put(f"gone/{n}", b"x")
    faulty.delete(f"gone/{n}")
    assert not true.exists(f"gone/{n}")


def buckets(faulty: Store, true: Store, folder: Path, n: int) -> None:
    other = faulty.of(f"{true.bucket}-{n}")
    other.ensure_bucket()
    other.put("a", b"1")
    assert true.of(other.bucket).get("a") == b"1"
    true.of(other.bucket).delete("a")
    true.client.delete_bucket(Bucket=other.bucket)


CONTRACT = {
    put_bytes: {"put"}, put_file: {"put"}, put_if_absent: {"put_if_absent"}, put_if_match: {"put_if_match"},
    get: {"get"}, get_part: {"get"}, get_with_etag: {"get_with_etag"}, download: {"download"}, look: {"size", "exists"},
    listing: {"list", "listed"}, delete: {"delete"}, buckets: {"of", "ensure_bucket"},
}  # fmt: skip


def test_contract_names_every_method():
    own = {name for name in dir(Store) if not name.startswith("_")}
    assert set().union(*CONTRACT.values()) == own - {"address", "link", "client"}  # which ask S3 nothing


_rounds = itertools.count()


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_gets_through_every_fault(shared, tmp_path, kind):
    with proxy_of(shared, **{kind: 0.3}) as proxy:
        faulty = behind(shared, proxy)
        while proxy.injected[kind] < (1 if kind == "unknown_checksum" else 8):
            n = next(_rounds)
            for action in CONTRACT:
                if (action, kind) != (get_part, "corrupt_answer"):  # nothing says what a part should be
                    action(faulty, shared, tmp_path, n)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "unknown_checksum"])
def test_fault_that_lasts_is_told_in_time(shared, kind):
    with proxy_of(shared, stall=30, **{kind: 1}) as proxy:
        faulty = behind(shared, proxy, s3_patience=1.5)
        begin = time.monotonic()
        error = failure(faulty.put, "x", BIG) if "request" in kind else failure(faulty.get, "big")
        assert time.monotonic() - begin < 12
    expected = {"slow_down": "STORE006", "internal": "STORE006", "internal_done": "STORE006"}
    expected |= {"corrupt_request": "STORE006", "corrupt_answer": "STORE007"}
    assert error.code == expected.get(kind, "STORE001")
    assert proxy.injected[kind] >= 3


def test_server_that_answered_before_is_waited_for_while_it_starts_again(store):
    store.put("a", b"1")
    with proxy_of(store) as proxy:
        faulty = behind(store, proxy)
        assert faulty.get("a") == b"1"

    def start() -> None:
        time.sleep(3.5)
        with FaultProxy(store.settings.s3_endpoint, {}, port=proxy.port):
            done.wait(20)

    done = threading.Event()
    thread = threading.Thread(target=start)
    thread.start()
    assert faulty.get("a") == b"1"
    done.set()
    thread.join()


def test_no_win_is_lost_and_none_is_told_twice_when_answers_are(store):
    """Eight writers move one object, whose bytes name all the moves that led to them: what S3 says of who has won."""
    chances = {"lost": 0.2, "internal_done": 0.1, "cut_answer": 0.1, "slow_down": 0.1, "refused": 0.1}
    with proxy_of(store, **chances) as proxy:

        def write(writer: int) -> list[str]:
            own, won = behind(store, proxy, s3_patience=60), []
            for n in range(1000):
                if len(won) == 3:
                    return won
                found = own.get_with_etag("HEAD")
                past = json.loads(found[0]) if found else []
                name = f"{writer}-{n}"
                if own.put_if_match("HEAD", json.dumps([*past, name]).encode(), found and found[1]):
                    won.append(name)
            raise AssertionError("another writer always won")

        with ThreadPoolExecutor(8) as pool:
            told = sorted(name for won in pool.map(write, range(8)) for name in won)
    assert told == sorted(json.loads(store.get("HEAD")))
    assert proxy.injected["lost"] > 10


def test_one_of_many_who_write_the_same_bytes_at_once_has_written_them(store):
    with proxy_of(store, lost=0.4, internal_done=0.1) as proxy, ThreadPoolExecutor(8) as pool:
        own = [behind(store, proxy) for _ in range(8)]
        for n in range(8):
            wins = Counter(pool.map(lambda s, key=f"once/{n}": s.put_if_absent(key, b"the same"), own))
            assert wins[True] == 1
    assert proxy.injected["lost"] > 20


def test_win_that_others_moved_on_before_it_was_known_is_a_win(store):
    """The answer is lost, and when the object is looked at, two others have moved it."""
    _, etag = (store.put("HEAD", b"0"), store.get_with_etag("HEAD"))[1]
    moved = []

    def others(request: Message, answer: Message) -> Message:
        if not moved and request.first.startswith("PUT"):
            moved.extend(store.put_if_match("HEAD", body, store.get_with_etag("HEAD")[1]) for body in (b"2", b"3"))
            return replace(answer, first="HTTP/1.1 500 Internal Server Error")
        return answer

    with FaultProxy(store.settings.s3_endpoint, {}, change_answer=others) as proxy:
        assert behind(store, proxy).put_if_match("HEAD", b"1", etag)
    assert moved == [True, True]
    assert store.get("HEAD") == b"3"


@pytest.mark.parametrize("kind", ["cut_answer", "truncated", "stalled", "trickled"])
def test_broken_get_goes_on_where_it_stopped(shared, kind):
    with proxy_of(shared, **{kind: 0.5}) as proxy:
        assert behind(shared, proxy).get("big") == BIG * 4
    etag = shared.get_with_etag("big")[1]
    begins = [int((r.header("range") or "bytes=0-").removeprefix("bytes=").rstrip("-")) for r in proxy.requests]
    assert begins == sorted(begins) and begins[0] == 0
    assert len(begins) > 1 and any(begins)
    assert all(r.header("if-match") == etag for r in proxy.requests if r.header("range"))


@pytest.mark.parametrize("way", ["get", "download"])
def test_two_versions_are_never_mixed(store, tmp_path, way):
    """The object is replaced while the first answer is under way, which breaks off."""
    store.put("big", BIG)
    other = BIG[::-1]

    def replaced(request: Message, answer: Message) -> Message:
        if request.first.startswith("GET"):
            store.put("big", other)
            proxy.chances.clear()
        return answer

    with FaultProxy(store.settings.s3_endpoint, {"cut_answer": 1}, seed=3, change_answer=replaced) as proxy:
        faulty = behind(store, proxy)
        if way == "get":
            assert faulty.get("big") == other
        else:
            faulty.download("big", tmp_path / "big")
            assert (tmp_path / "big").read_bytes() == other
            assert [p.name for p in tmp_path.iterdir()] == ["big"]
    assert proxy.injected["cut_answer"] == 1


def test_download_goes_on_after_its_process_was_killed(store, tmp_path):
    store.put("big", BIG)

    def begin(request: Message, answer: Message) -> Message:
        proxy.chances["stalled"] = 1
        return answer

    with FaultProxy(store.settings.s3_endpoint, {}, stall=60, change_answer=begin) as proxy:
        child = get_context("spawn").Process(
            target=Store.download, args=(behind(store, proxy, s3_read_timeout=60), "big", tmp_path / "big")
        )
        child.start()
        while not (parts := [p for p in tmp_path.glob("big.*.part") if p.stat().st_size]):
            time.sleep(0.05)
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        (had,) = (p.stat().st_size for p in parts)
    with proxy_of(store) as proxy:
        behind(store, proxy).download("big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == BIG
    assert proxy.requests[-1].header("range") == f"bytes={had}-"
    assert [p.name for p in tmp_path.iterdir()] == ["big"]


def test_downloads_of_one_file_at_once_do_not_spoil_each_other(store, tmp_path):
    store.put("big", BIG)
    with proxy_of(store, cut_answer=0.3, truncated=0.3) as proxy, ThreadPoolExecutor(6) as pool:
        own = [behind(store, proxy) for _ in range(6)]
        found = list(pool.map(lambda s: s.download("big", tmp_path / "big"), own))
    assert found == [hashlib.sha256(BIG).hexdigest()] * 6
    assert (tmp_path / "big").read_bytes() == BIG
    assert [p.name for p in tmp_path.iterdir()] == ["big"]
