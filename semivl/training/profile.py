"""`compute.profile`: the steps whose trace by torch's profiler the run keeps; chrome://tracing and Perfetto show it."""

from pathlib import Path

from torch.profiler import profile


class StepProfile:
    """Watches the steps from START up to, not including, STOP, and leaves a trace of them."""

    def __init__(self, steps: str | None, folder: Path) -> None:
        """`steps`: START-STOP, or nothing."""
        self._start, self._stop = map(int, steps.split("-")) if steps else (-1, -1)
        self._folder = folder
        self._watching: profile | None = None

    def before(self, step: int) -> None:
        """To be called before each step."""
        if step == self._start:
            self._watching = profile()
            self._watching.start()

    def after(self, step: int) -> Path | None:
        """To be called after each step: the trace, once it is whole."""
        if self._watching is None or step + 1 < self._stop:
            return None
        self._watching.stop()
        path = self._folder / f"trace-{self._start}-{self._stop}.json.gz"
        self._watching.export_chrome_trace(str(path))
        self._watching = None
        return path
