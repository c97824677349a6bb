"""Work beside the training: done by one thread in the order given, so that no step waits for S3 or MLflow."""

import logging
from collections.abc import Callable
from queue import Queue
from threading import Thread
from typing import Self

log = logging.getLogger(__name__)


class Background:
    """One thread and a short queue. What goes wrong in it is raised at the next call, and nothing is done after it.

    As a context it waits at the end for all that was given. Where the block ends by a fault, that one goes up, and the
    background's own is logged.
    """

    def __init__(self, waiting: int) -> None:
        """`waiting`: pieces of work that may wait; who brings more waits himself."""
        self._jobs: Queue[Callable[[], object] | None] = Queue(waiting)
        self._fault: BaseException | None = None
        self._thread = Thread(target=self._work, name="semivl-background", daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], object]) -> None:
        """Takes a piece of work; raises what went wrong in an earlier one."""
        self.check()
        self._jobs.put(job)

    def check(self) -> None:
        """Raises what went wrong, once."""
        if self._fault:
            fault, self._fault = self._fault, None
            raise fault

    def wait(self) -> None:
        """Returns when all is done that was given, or raises what went wrong."""
        self._jobs.join()
        self.check()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._fault is None:
                    job()
            except BaseException as error:  # whatever it is, the training's thread is to hear of it
                self._fault = error
            finally:
                self._jobs.task_done()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._jobs.put(None)
        self._thread.join()
        if kind is None:
            self.check()
        elif self._fault:
            log.error("beside the fault that ends the training: %s", self._fault)
