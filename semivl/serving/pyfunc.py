"""The code that MLflow runs for a registered version: photos in, masks out.

A "model from code": MLflow copies this file beside the bundle and the semivl package, and runs it on load.
    >>> model = mlflow.pyfunc.load_model("models:/semivl-scenes@champion")       # doctest: +SKIP
    >>> model.predict(pd.DataFrame({"image": [Path("photo.jpg").read_bytes()]}))  # doctest: +SKIP
"""

import base64
import logging
import threading
from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    RESOURCE_EXHAUSTED,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.pyfunc import PythonModel, PythonModelContext

from semivl.errors import SemivlError, StoreError

log = logging.getLogger("semivl.serving")
_COLUMNS = ("mask", "width", "height", "classes", "confidence", "confidence_map", "rle")


class SegmentationModel(PythonModel):
    """Column `image` -> `mask` (a palette PNG of class ids), `width`, `height`, `classes`, `confidence`.

    An image is a JPEG or PNG: its bytes, base64 of them (also as a data: URI), or its s3:// address. For bytes the
    mask is bytes, else base64. Masks are of the photo as it is seen, EXIF orientation applied.
    """

    def load_context(self, context: PythonModelContext) -> None:
        import torch

        from semivl.serving.serve_gate import bound_requests, is_serving
        from semivl.serving.serve_settings import UNBOUNDED, serve_settings
        from semivl.training.bundle import load_bundle

        self._bounds = serve_settings()
        if is_serving():
            bound_requests(self._bounds)
        else:
            self._bounds = self._bounds.model_copy(update=UNBOUNDED)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.predictor = load_bundle(Path(context.artifacts["bundle"]), device)
        self._free = threading.BoundedSemaphore(self._bounds.concurrency)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row a photo, in the order given.

        Args:
            params: `confidence`: also a PNG of every pixel's probability; `rle`: also COCO's run lengths.

        Raises:
            MlflowException: with the code of what is wrong; MLflow's server answers 400 where the request is at fault,
                503 where S3 is away, 429 where memory runs out.
        """
        asked = params or {}
        try:
            with self._free:
                rows = self._answered(list(model_input["image"]), bool(asked.get("confidence")), bool(asked.get("rle")))
        except StoreError as error:
            raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from None
        except SemivlError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None
        except Exception as error:  # MLflow would show the stack to whoever asked
            if isinstance(error, MemoryError) or "out of memory" in str(error) or "allocate memory" in str(error):
                what = "PRED016 there is not enough memory for these images. Send fewer or smaller ones."
                raise MlflowException(what, error_code=RESOURCE_EXHAUSTED) from None
            log.exception("a request failed")
            what = "PRED017 the prediction failed. The server's log says why."
            raise MlflowException(what, error_code=INTERNAL_ERROR) from None
        return pd.DataFrame(rows, columns=[name for name in _COLUMNS if not rows or name in rows[0]])

    def _answered(self, values: list[Any], confidence: bool, rle: bool) -> list[dict[str, Any]]:
        from semivl.evaluation.overlay import mask_png
        from semivl.serving.predict_answer import answers, picture, run_lengths, shares
        from semivl.serving.serve_images import decoded

        rows, names = [], self.predictor.classes.names
        for value, photo in zip(values, decoded(values, self._bounds), strict=True):
            (answer,) = answers(self.predictor, [photo])
            as_asked = _base64 if isinstance(value, str) else bytes
            row = {
                "mask": as_asked(mask_png(answer.mask)),
                "width": answer.mask.shape[1],
                "height": answer.mask.shape[0],
                "classes": shares(answer.mask, names),
                "confidence": answer.mean_confidence,
            }
            row |= {"confidence_map": as_asked(picture(answer.confidence, "PNG"))} if confidence else {}
            row |= {"rle": run_lengths(answer, names)} if rle else {}
            rows.append(row)
        return rows


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


mlflow.models.set_model(SegmentationModel())
