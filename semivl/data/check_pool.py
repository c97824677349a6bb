"""Check pool: `examine` in processes of its own, so that a poisonous file costs itself and nothing else.

1. A worker is a plain child process with two pipes; `subprocess` starts it, which daemons, threads and Ray's actors may
   do too. It is told the search path, inherits no other file or socket, and no secret of the environment.
2. A thread for each worker hands it a handful of pairs and waits for their rows; one message a pair would cost a fifth
   more CPU. Only the rows come back, as the parent has the bytes.
3. Two handfuls for each worker are on their way, so that the parent holds few files whatever their number.
4. What is found comes in the order of the pairs. It depends on a pair alone: it is the same in any worker, and in none.
5. Memory: RLIMIT_DATA, what a worker has when it is ready and `memory` bytes more (Linux; no bound elsewhere).
6. Time: `seconds` of the worker's own CPU, so that a busy machine costs no file, and ten times as long by the clock,
   for one that hangs. Interval timers of the worker, whose signals end it within a decoder too.
7. A worker that dies is replaced, and its handful is given to the next one by one: one pair is at fault, and where
   somebody else killed the worker, none.
8. A worker ends when its parent does: it watches its end of the pipe and leaves at once, also while it decodes.
9. It needs a second to start, so that `shared_pool` keeps one pool for a whole process and closes it at its end.
"""

import atexit
import fcntl
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Self

from semivl.config import Classes
from semivl.data.check_worker import NO_MEMORY, PATIENCE, Found, Settings, Task
from semivl.data.checks import Checked, Files, Limits, Quarantined, name_of
from semivl.data.headers import JPEG
from semivl.data.sample import Source
from semivl.errors import DataError

_START = "import sys; sys.path[:] = sys.argv[1:]; from semivl.data.check_worker import work; work()"
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONUTF8", "VIRTUAL_ENV")
"""what a worker needs of the environment; secrets are not among it"""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_HANDFUL, _HANDFUL_BYTES = 16, 1 << 20


class _LostError(Exception):
    """A worker is gone: the code and the reason, and whether the file may be sound all the same."""

    def __init__(self, code: str, reason: str, *, again: bool) -> None:
        super().__init__(code, reason)
        self.code, self.reason, self.again = code, reason, again


class CheckPool:
    """Workers that examine. A context manager: when it is left, no process stays."""

    def __init__(self, classes: Classes, limits: Limits, workers: int, memory: int, seconds: float) -> None:
        """
        Args:
            workers: processes; they start with the first pairs
            memory: bytes that a worker may need for one file, its own aside; twelve times `max_pixels` is enough
            seconds: CPU time that a worker may need for one file
        """
        self._settings = Settings(classes, limits, memory, seconds)
        self._handfuls: queue.SimpleQueue[tuple[Future[list[Found]], list[Task]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._owner: int | None = os.getpid()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def examine(self, pairs: Iterable[tuple[Source, Files]]) -> Iterator[Checked | Quarantined]:
        """What `checks.examine` says of each pair, in their order; a pair that ends its worker is quarantined.

        The files as `source_files.read_raw` gives them: masks become class ids in the worker too.

        DATA030 took too long, DATA031 needed too much memory, DATA032 crashed the decoder. May be called from several
        threads at once.

        Raises:
            DataError: DATA033 the workers cannot start.
        """
        if self._owner != os.getpid():
            raise RuntimeError("the pool was closed, or belongs to the process that this one was forked from")
        waiting: deque[tuple[list[Task], Future[list[Found]]]] = deque()
        try:
            for handful in _handfuls(pairs):
                future: Future[list[Found]] = Future()
                self._handfuls.put((future, handful))
                waiting.append((handful, future))
                if len(waiting) == 2 * len(self._threads):
                    yield from _checked(*waiting.popleft())
            while waiting:
                yield from _checked(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def close(self) -> None:
        """Ends the workers, also those that are at work. In a process that was forked off: nothing."""
        if self._owner != os.getpid():
            return
        with self._lock:
            self._owner = None
            for worker in self._workers:
                worker.process.kill()
        for _ in self._threads:
            self._handfuls.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """A thread: handfuls to a worker of its own, and what it says to whoever waits."""
        worker = None
        while waiting := self._handfuls.get():
            future, handful = waiting
            if not future.set_running_or_notify_cancel():
                continue
            try:
                worker, found = self._examined(worker, handful)
                future.set_result(found)
            except BaseException as error:  # whoever waits is told, whatever it is
                worker = None
                future.set_exception(error)
        if worker:
            self._end(worker)

    def _examined(
        self, worker: "_Worker | None", tasks: list[Task], last: bool = False
    ) -> tuple["_Worker | None", list[Found]]:
        """The worker, where it is still there, and what it found. `last`: a task is not tried again."""
        worker = worker or self._started()
        try:
            return worker, worker.examine(tasks)
        except _LostError as lost:
            self._end(worker)
            if self._owner is None:
                raise
            if len(tasks) == 1 and (last or not lost.again):
                source, files = tasks[0]
                return None, [Quarantined(name_of(source.image), lost.code, lost.reason, len(files.image))]
        except BaseException:  # what cannot be sent leaves half a message behind
            self._end(worker)
            raise
        worker, found = None, []
        for task in tasks:
            worker, one = self._examined(worker, [task], last=True)
            found += one
        return worker, found

    def _started(self) -> "_Worker":
        with self._lock:
            if self._owner is None:
                raise RuntimeError("the pool was closed")
            worker = _Worker(self._settings)
            self._workers.add(worker)
        try:
            worker.wait_until_ready()
        except BaseException:
            self._end(worker)
            raise
        return worker

    def _end(self, worker: "_Worker") -> None:
        worker.end()
        with self._lock:
            self._workers.discard(worker)


class _Worker:
    """A child process and its pipes."""

    def __init__(self, settings: Settings) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: os.environ[name] for name in _KEPT if name in os.environ} | _ONE_THREAD,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
        )
        assert self.process.stdin and self.process.stdout
        self._requests, self._answers = self.process.stdin, self.process.stdout
        with suppress(OSError, AttributeError):  # the system may give less: a handful then takes several turns
            fcntl.fcntl(self._requests, fcntl.F_SETPIPE_SZ, _HANDFUL_BYTES)
        self._settings = settings

    def wait_until_ready(self) -> None:
        """Raises DataError DATA033 where the worker does not come up."""
        try:
            self._ask(self._settings)
        except _LostError as lost:
            raise DataError(
                "DATA033",
                f"a process that checks images cannot start: {lost.reason}.",
                "What it wrote to standard error tells why.",
            ) from None

    def examine(self, tasks: list[Task]) -> list[Found]:
        """Raises _LostError where the worker ends instead."""
        return self._ask(tasks)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):  # what was not sent yet never will be
                pipe.close()

    def _ask(self, request: object) -> Any:
        try:
            pickle.dump(request, self._requests, pickle.HIGHEST_PROTOCOL)
            self._requests.flush()
            return pickle.load(self._answers)  # noqa: S301 (from a process of our own)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise self._why() from None

    def _why(self) -> _LostError:
        """Why the process ended."""
        code, seconds = self.process.wait(), self._settings.seconds
        if code == -signal.SIGPROF:
            return _LostError("DATA030", f"it took more than {seconds:g} s of CPU time", again=False)
        if code == -signal.SIGALRM:
            return _LostError("DATA030", f"it took more than {PATIENCE * seconds:g} s by the clock", again=False)
        if code == NO_MEMORY:
            return _LostError("DATA031", f"it needed more than {self._settings.memory} bytes of memory", again=False)
        if code == -signal.SIGKILL:
            return _LostError("DATA031", "its process was killed, as systems do where memory runs out", again=True)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _LostError("DATA032", f"the process that decoded it crashed ({name})", again=True)


def _handfuls(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    handful, size = [], 0
    for task in tasks:
        handful.append(task)
        size += len(task[1].image) + len(task[1].mask or b"")
        if len(handful) == _HANDFUL or size > _HANDFUL_BYTES:
            yield handful
            handful, size = [], 0
    if handful:
        yield handful


def _checked(handful: list[Task], future: "Future[list[Found]]") -> Iterator[Checked | Quarantined]:
    for (_, files), found in zip(handful, future.result(), strict=True):
        if isinstance(found, Quarantined):
            yield found
            continue
        row, mask = found
        ending = "jpg" if files.image.startswith(JPEG) else "png"
        yield Checked(files if mask is None else Files(files.image, mask), ending, row)


_shared: dict[tuple[object, ...], CheckPool] = {}
_sharing = threading.Lock()


def shared_pool(classes: Classes, limits: Limits, workers: int, memory: int, seconds: float) -> CheckPool:
    """The pool of this process with these settings, started when it is first asked for and closed at exit."""
    settings = (classes, limits, workers, memory, seconds)
    with _sharing:
        key = (os.getpid(), *settings)
        if key not in _shared:
            _shared[key] = CheckPool(*settings)
            atexit.register(_shared[key].close)
        return _shared[key]
