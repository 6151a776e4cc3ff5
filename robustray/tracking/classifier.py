"""A network that was logged to MLflow, as `mlflow.pyfunc` loads it: weights and a description.

Nothing is pickled. The network is built by its name, its weights are read from a safetensors file.
"""

# MLflow's types are incomplete.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUntypedBaseClass=false
# pyright: reportIncompatibleMethodOverride=false, reportMissingTypeArgument=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel
from numpy.typing import NDArray

from robustray.manifest import ModelConfig
from robustray.models import create_model
from robustray.store import load_tensors

_BATCH = 250


class LoggedClassifier(PythonModel):
    """Images (N, C, H, W) float32 in [0, 1] in, logits (N, K) float32 out."""

    network: torch.nn.Module

    def load_context(self, context: Any) -> None:
        """Build the network, and give it the weights that it was logged with.

        Raises
        ------
        CorruptObjectError
            If the weights are not those.
        """
        facts = json.loads(Path(context.artifacts["network"]).read_text())
        config = ModelConfig.model_validate(facts["model"])
        self.network = create_model(
            config.name,
            num_classes=facts["num_classes"],
            in_channels=facts["image_shape"][0],
            **config.options(),
        )
        weights = load_tensors(Path(context.artifacts["weights"]), facts["weights_sha256"])
        self.network.load_state_dict(weights)
        self.network.eval()

    def predict(  # MLflow would read a schema from any other annotation of the input
        self,
        context: Any,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Return the logits of images."""
        images = torch.from_numpy(np.array(model_input, dtype=np.float32))
        cuts = range(0, len(images), _BATCH)
        with torch.inference_mode():
            logits = [self.network(images[cut : cut + _BATCH]) for cut in cuts]
        return torch.cat(logits).numpy()
