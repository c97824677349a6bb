"""Who is told how a training goes, and the thread that tells him, so that no step waits for MLflow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from semivl.training.background import Background

_WAITING = 64
"""things to be told that may wait"""


class Observer(Protocol):
    """Who is told how a training goes."""

    def samples(self, told: Sequence[str]) -> None: ...

    def metrics(self, step: int, values: dict[str, float]) -> None: ...

    def previews(self, step: int, images: dict[str, np.ndarray]) -> None: ...

    def checkpoint(self, step: int, path: Path) -> None: ...

    def artifact(self, path: Path) -> None: ...


class Unobserved:
    """Nobody is told: what the ranks but the first have."""

    def samples(self, told: Sequence[str]) -> None: ...

    def metrics(self, step: int, values: dict[str, float]) -> None: ...

    def previews(self, step: int, images: dict[str, np.ndarray]) -> None: ...

    def checkpoint(self, step: int, path: Path) -> None: ...

    def artifact(self, path: Path) -> None: ...


class Telling(Background):
    """Tells an observer in the background, in order. What he raises is raised at the next call."""

    def __init__(self, observer: Observer) -> None:
        super().__init__(_WAITING)
        self._observer = observer

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.do(lambda: self._observer.metrics(step, values))

    def previews(self, step: int, images: dict[str, np.ndarray]) -> None:
        self.do(lambda: self._observer.previews(step, images))

    def artifact(self, path: Path) -> None:
        self.do(lambda: self._observer.artifact(path))

    def checkpoint(self, step: int, path: Path) -> None:
        """Not in the background: he may end the training here."""
        self.wait()
        self._observer.checkpoint(step, path)
