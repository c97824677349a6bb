"""The job of a prediction, as the command line and the flow give it: addresses in words, settings beside them."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pydantic import Field

from semivl.config import check
from semivl.data.checks import Limits
from semivl.errors import TrainingError
from semivl.serving.finished import load_model
from semivl.serving.predict import PredictSettings, Progress, Summary, predict
from semivl.serving.predict_outputs import open_outputs
from semivl.serving.predict_photos import open_photos


class Job(PredictSettings):
    """One prediction."""

    source: str = Field(min_length=1, description="folder, photo, s3://BUCKET/PREFIX, or DATASET@VERSION (or @HEAD)")
    output: str = Field(min_length=1, description="folder, or a prefix in the configured bucket")
    model: str = Field(min_length=1, description="NAME@champion, NAME/7, or the folder of a bundle")
    split: Literal["train", "val"] | None = Field(None, description="of a snapshot; all of it where empty")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")


class Done(NamedTuple):
    """What became of a job."""

    model: str
    version: int | None
    address: str
    """of the output"""
    summary: Summary

    @property
    def refused(self) -> dict[str, int]:
        return self.summary.refused

    def row(self) -> dict[str, Any]:
        """For a table: counts, and photos a second of this run."""
        found = self.summary
        return {
            "model": self.model if self.version is None else f"{self.model} version {self.version}",
            "photos": found.photos,
            "predicted": found.predicted,
            "there already": found.reused,
            "refused": sum(found.refused.values()),
            "seconds": round(found.seconds, 1),
            "predicted a second": round(found.predicted / found.seconds, 2),
        }


def checked(**given: Any) -> Job:
    """The job; CONF003 names what cannot be used."""
    return check(Job, given, "predict")


def prepare(job: Job) -> Callable[[Progress | None], Done]:
    """Opens the source, the output and the model, each of which may be at fault; gives what does the work.

    Raises:
        DataError: PRED003 to PRED005 source or output, TrainingError: TRAIN005 no GPU; `load_model`'s.
    """
    photos = open_photos(job.source, job.split, Limits(max_pixels=job.max_pixels))
    outputs = open_outputs(job.output, photos.address)
    model = load_model(job.model, _device(job.device))
    settings = PredictSettings(**job.model_dump(include=set(PredictSettings.model_fields)))

    def work(progress: Progress | None = None) -> Done:
        summary = predict(model, photos, outputs, settings, progress)
        return Done(model.name, model.version, outputs.address, summary)

    return work


def _device(asked: str) -> str:
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise TrainingError("TRAIN005", "the device is cuda, but torch sees no GPU.", "Use auto or cpu.")
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"
