"""The pool says what one process says, whatever becomes of its workers, and leaves none behind."""

import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path, PurePosixPath

import hostile
import numpy as np
import psutil
import pytest

from semivl.data.check_pool import CheckPool, shared_pool
from semivl.data.checks import Checked, Files, Limits, Quarantined, examine
from semivl.data.sample import Source
from semivl.data.source_files import with_class_ids
from semivl.errors import DataError
from tests.data import pictures

LIMITS, MEMORY, SECONDS = hostile.LIMITS, hostile.MEMORY, hostile.SECONDS


class Poison:
    """A source that does something to the process that reads it."""

    image = Path("poison.jpg")

    def __init__(self, call, *arguments) -> None:
        self.does = (call, arguments)

    def __reduce__(self):
        return self.does


class Sleeps(PurePosixPath):
    """A path that hangs whoever asks for it, and needs no CPU for that."""

    def as_posix(self) -> str:
        if "resource" in sys.modules and resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:  # in a worker
            time.sleep(100)
        return super().as_posix()


def photos(count: int, first: int = 0) -> list[tuple[Source, Files]]:
    bodies = [pictures.saved(pictures.pixels(first + i), "JPEG") for i in range(count)]
    return [(Source(Path(f"{first + i:03}.jpg"), "train"), Files(body, None)) for i, body in enumerate(bodies)]


def alone(pairs) -> list[Checked | Quarantined]:
    return [examine(source, files, hostile.CLASSES, LIMITS) for source, files in pairs]


def pool(workers: int = 1, memory: int = MEMORY, seconds: float = SECONDS) -> CheckPool:
    return CheckPool(hostile.CLASSES, LIMITS, workers, memory, seconds)


def workers_of(pid: int | None = None) -> list[psutil.Process]:
    """The running workers that a process started."""
    living = [p for p in psutil.Process(pid).children() if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in living if "check_worker" in " ".join(p.cmdline())]


def gone(processes: list[psutil.Process], within: float = 5.0) -> bool:
    return not psutil.wait_procs(processes, timeout=within)[1]


def test_same_results_in_the_same_order_whatever_the_number_of_workers():
    pairs = photos(100)
    broken = [Files(b"", None), Files(pairs[0][1].image[:400], None), Files(pairs[1][1].image, b"GIF89a")]
    pairs[10:10] = [(Source(Path(f"broken{i}.jpg"), "train"), files) for i, files in enumerate(broken)]
    expected = alone(pairs)
    assert [f.source for f in expected if isinstance(f, Quarantined)] == [f"broken{i}.jpg" for i in range(3)]
    poisoned = [*pairs[:50], (Poison(os.abort), Files(b"12345", None)), *pairs[50:]]
    for workers in (1, 3):
        with pool(workers) as opened:
            found = list(opened.examine(poisoned))
        assert found[:50] + found[51:] == expected


def test_raw_masks_become_class_ids_in_the_worker():
    image = photos(1)[0][1].image
    ids = np.full((pictures.HEIGHT, pictures.WIDTH), 7, np.uint8)
    ids[0] = 8
    own = Files(image, pictures.saved(ids, "PNG"))
    plain = Files(image, pictures.saved(ids - np.uint8(6), "PNG"))
    place = {"image": Path("a.jpg"), "split": "train", "mask": Path("a.png")}
    outlines = json.dumps(
        {"size": [1, 1], "layers": [{"names": {}, "objects": [{"category_id": 5}]}], "other": "ignore"}
    )
    pairs = [
        (Source(**place, mask_ids="cityscapes"), own),
        (Source(**place), plain),
        (Source(Path("a.jpg"), "train", mask_ids="outlines", annotation=outlines), Files(image, None)),
        *photos(2),
    ]
    with pool(1) as opened:
        raw = list(opened.examine(pairs))
    converted = [with_class_ids(*pair, hostile.CLASSES, LIMITS) for pair in pairs]
    assert raw == [
        files if isinstance(files, Quarantined) else examine(source, files, hostile.CLASSES, LIMITS)
        for (source, _), files in zip(pairs, converted, strict=True)
    ]
    assert isinstance(raw[0], Checked) and raw[0].row.pixels == (31 * 48, 48, 0)
    assert raw[0].files.mask != own.mask
    assert isinstance(raw[1], Checked) and raw[1].files == plain
    assert isinstance(raw[2], Quarantined)


def test_poison_costs_itself_alone_and_says_why():
    poisons = {
        "SIGABRT": ("DATA032", Poison(os.abort)),
        "SIGSEGV": ("DATA032", Poison(os.kill, 0, signal.SIGSEGV)),
        "exit code 3": ("DATA032", Poison(os._exit, 3)),
        "bytes of memory": ("DATA031", Poison(bytearray, 1 << 34)),
        "killed": ("DATA031", Poison(os.kill, 0, signal.SIGKILL)),
        "of CPU time": ("DATA030", Poison(sum, range(10**12))),
        "by the clock": ("DATA030", Source(Sleeps("poison.jpg"), "train")),
    }
    sound = photos(len(poisons) + 1)
    pairs = [sound[0]]
    for (_, poison), pair in zip(poisons.values(), sound[1:], strict=True):
        pairs += [(poison, Files(b"12345", None)), pair]
    with pool(seconds=0.2) as opened:
        found = list(opened.examine(pairs))
    assert found[::2] == alone(sound)
    for (word, (code, _)), refused in zip(poisons.items(), found[1::2], strict=True):
        assert isinstance(refused, Quarantined)
        assert (refused.source, refused.code, refused.bytes) == ("poison.jpg", code, 5)
        assert word in refused.reason


def test_worker_that_somebody_kills_costs_no_file():
    pairs = photos(120)
    with pool(2) as opened:
        found = []
        for number, result in enumerate(opened.examine(pairs)):
            found.append(result)
            for worker in workers_of() if number == 20 else []:
                worker.kill()
    assert found == alone(pairs)


def test_few_pairs_are_on_their_way_and_few_bytes():
    taken = 0

    def endless(body: bytes):
        nonlocal taken
        while True:
            taken += 1
            yield Source(Path("a.jpg"), "train"), Files(body, None)

    for body, most in ((photos(1)[0][1].image, 2 * 16), (b"\xff\xd8\xff" + bytes(1_500_000), 2 * 1)):
        with pool(1) as opened:
            taken = 0
            for number, _ in zip(range(100), opened.examine(endless(body)), strict=False):
                assert taken - number <= most + 1


def test_nothing_is_left_when_the_pool_is_left():
    with pool(2) as opened:
        opened_threads = threading.active_count()
        next(opened.examine(photos(64)))
        workers = workers_of()
    assert workers and gone(workers, within=0)
    assert threading.active_count() == opened_threads - 2
    with pytest.raises(RuntimeError, match="closed"):
        next(opened.examine(photos(1)))


SCRIPT = """
    import signal, sys, hostile
    from tests.data import pictures
    from pathlib import Path
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit none
    from semivl.data.check_pool import CheckPool, shared_pool
    from semivl.data.checks import Files
    from semivl.data.sample import Source
    slow = [(Source(Path("a.jpg"), "train"), Files(pictures.many_scans(4096, 100_000), None))]
    settings = hostile.CLASSES, hostile.LIMITS, 2, 1 << 30, 60.0
"""


def started(script: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(SCRIPT) + textwrap.dedent(script)
    folders = [str(Path(hostile.__file__).parent), *(p for p in sys.path if p)]
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
    )


AT_WORK = """
    import threading
    with CheckPool(*settings) as pool:
        found = pool.examine(slow * 2)
        threading.Timer(2.5, print, ["at work"], {"flush": True}).start()
        next(found)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent_even_while_it_decodes(number):
    parent = started(AT_WORK)
    assert parent.stdout and parent.stdout.readline() == "at work\n"
    workers = workers_of(parent.pid)
    assert len(workers) == 2
    parent.send_signal(number)
    assert parent.wait(20) != 0
    assert gone(workers)


def test_pool_of_a_process_is_shared_and_ends_with_it():
    parent = started("""
        from concurrent.futures import ThreadPoolExecutor
        few = [(Source(Path("a.jpg"), "train"), Files(pictures.saved(pictures.pixels(), "JPEG"), None))] * 40
        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(lambda _: list(shared_pool(*settings).examine(few)), range(4)))
        assert all(r == results[0] for r in results) and len(results[0]) == 40
        import psutil
        print(*[p.pid for p in psutil.Process().children()], flush=True)
        shared_pool(*settings).examine(slow)
    """)
    told, _ = parent.communicate(timeout=60)
    pids = [int(pid) for pid in told.split()]
    assert parent.returncode == 0
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_same_settings_give_the_same_shared_pool():
    settings = hostile.CLASSES, Limits(), 1, MEMORY, SECONDS
    again = hostile.CLASSES.model_copy(deep=True), Limits(), 1, MEMORY, SECONDS
    assert shared_pool(*settings) is shared_pool(*again)
    assert shared_pool(*settings) is not shared_pool(*settings[:4], 2.0)


def _in_a_daemon(answers) -> None:
    with CheckPool(hostile.CLASSES, LIMITS, 1, MEMORY, SECONDS) as opened:
        answers.send([f.row.key for f in opened.examine(photos(3)) if isinstance(f, Checked)])


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_daemons_may_have_a_pool(way):
    context = multiprocessing.get_context(way)
    ours, theirs = context.Pipe()
    daemon = context.Process(target=_in_a_daemon, args=(theirs,), daemon=True)
    daemon.start()
    assert ours.poll(60)
    assert len(ours.recv()) == 3
    daemon.join(10)
    assert daemon.exitcode == 0


def test_process_that_was_forked_off_leaves_the_workers_alone():
    with pool(1) as opened:
        list(opened.examine(photos(1)))
        pid = os.fork()
        if pid == 0:
            try:
                opened.close()
                next(opened.examine(photos(1)))
            except RuntimeError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert len(list(opened.examine(photos(20)))) == 20


def test_workers_inherit_neither_sockets_nor_secrets(monkeypatch):
    monkeypatch.setenv("SEMIVL_S3_SECRET_KEY", "do not tell")
    with socket.socket() as listening, pool(1) as opened:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.set_inheritable(True)
        list(opened.examine(photos(1)))
        (worker,) = workers_of()
        files = [str(file.readlink()) for file in Path(f"/proc/{worker.pid}/fd").iterdir()]
        assert not [f for f in files if f.startswith("socket:")]
        assert "do not tell" not in worker.environ().values()


def test_workers_import_none_of_the_heavy_libraries():
    heavy = "torch", "great_expectations", "pandas", "pyarrow", "boto3", "imagehash", "pywt", "mlflow", "prefect", "cv2"
    code = f"import sys, semivl.data.check_worker as w; w._warm_up(); print([m for m in {heavy} if m in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert told.stdout == "[]\n"


def test_worker_that_cannot_start_is_an_error_of_the_run_and_no_fault_of_a_file(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pool(1) as opened, pytest.raises(DataError) as raised:
        list(opened.examine(photos(3)))
    assert raised.value.code == "DATA033"


def test_what_cannot_be_sent_is_told_and_the_pool_goes_on():
    class Local:
        image = Path("a.jpg")

    with pool(1) as opened:
        with pytest.raises(Exception, match=r"pickle|Can't get"):
            list(opened.examine([(Local(), Files(b"", None))]))
        assert len(list(opened.examine(photos(3)))) == 3


def test_source_that_fails_is_told_and_leaves_nothing_waiting():
    def fails():
        yield from photos(50)
        raise OSError("the source is gone")

    with pool(1) as opened:
        with pytest.raises(OSError, match="gone"):
            list(opened.examine(fails()))
        assert len(list(opened.examine(photos(3)))) == 3
