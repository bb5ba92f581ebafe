"""Loader of a finalist's model for `mlflow.pyfunc.load_model`; MLflow imports this module by its name."""

from pathlib import Path
from typing import Any

WEIGHTS, MODEL = "weights.pt", "model.yaml"
"""Files of a model in MLflow, as those of its trial."""


def _load_pyfunc(path: str) -> "ImageModel":
    """Return the model in a folder that MLflow has downloaded; called by MLflow.

    Raises:
        DataError: the model has operators of a user's file that this process has not loaded.
    """
    from trials import weights  # noqa: PLC0415 - PyTorch, when a model is loaded

    return ImageModel(weights.read(Path(path) / WEIGHTS))


class ImageModel:
    """Detection model that takes and returns arrays.

    Args:
        model: an `nn.Module` of a detector.
    """

    def __init__(self, model: Any) -> None:
        self._model = model.float().eval()

    def predict(self, images: Any, params: Any = None) -> Any:
        """Return what the exported ONNX graph returns: boxes and class scores, before non-maximum suppression.

        Args:
            images: float32, RGB from 0 to 1, `(batch, 3, height, width)`; sides are multiples of 32.
            params: of MLflow's interface; none are used.

        Returns:
            float32, `(batch, 4 + classes, anchors)` with boxes as centre, width and height in pixels; of an end-to-end
            head `(batch, 300, 6)`.
        """
        import torch  # noqa: PLC0415 - as above

        del params
        with torch.inference_mode():
            found = self._model(torch.as_tensor(images, dtype=torch.float32))
        return (found[0] if isinstance(found, (tuple, list)) else found).numpy()
