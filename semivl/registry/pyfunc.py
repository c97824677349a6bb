"""The code that MLflow runs for a registered version: photos in, masks out.

A "model from code": MLflow copies this file beside the bundle and the semivl package, and runs it on load.
    >>> model = mlflow.pyfunc.load_model("models:/semivl-scenes@champion")       # doctest: +SKIP
    >>> model.predict(pd.DataFrame({"image": [Path("photo.jpg").read_bytes()]}))  # doctest: +SKIP
"""

from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from semivl.errors import RegistryError, SemivlError


class SegmentationModel(PythonModel):
    """Column `image` (JPEG or PNG bytes) -> `mask` (bytes of a palette PNG of class ids), `width`, `height`."""

    def load_context(self, context: PythonModelContext) -> None:
        import torch

        from semivl.training.bundle import load_bundle

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.predictor = load_bundle(Path(context.artifacts["bundle"]), device)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, context: Any, model_input: pd.DataFrame, params: Any = None
    ) -> pd.DataFrame:
        """A row a photo, in the order given.

        Raises:
            RegistryError: REG005 a row that holds no photo.
        """
        rows = [self._segment(number, data) for number, data in enumerate(model_input["image"])]
        return pd.DataFrame(rows, columns=["mask", "width", "height"])

    def _segment(self, number: int, data: Any) -> tuple[bytes, int, int]:
        from semivl.data.decode import decode_image
        from semivl.evaluation.overlay import mask_png
        from semivl.evaluation.scores import predicted_mask

        try:
            photo = decode_image(bytes(data))
        except (SemivlError, OSError, ValueError, TypeError) as error:
            raise RegistryError(
                "REG005",
                f"row {number}: the image cannot be decoded ({error}).",
                "Send the bytes of a JPEG or PNG.",
            ) from None
        mask = predicted_mask(self.predictor, photo)
        return mask_png(mask), mask.shape[1], mask.shape[0]


mlflow.models.set_model(SegmentationModel())
