"""From weights that need a batch to weights of an ordinary classifier: mode "frozen"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from robustray.models.errors import ModelError
from robustray.models.quantised import QuantisedNetwork, frozen_copy
from robustray.models.registry import create_model
from robustray.models.weights import load_weights, save_weights


def freeze_weights(
    path: str | Path,
    output: str | Path,
    model: str,
    x_BCHW: Tensor,
    *,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write weights with the statistics and maxima of a calibration set, taken as one batch.

    The result is for the same model with ``mode="frozen"``.

    Parameters
    ----------
    path, output : str or Path
        Weights of mode "literal" or "per_image", in any layout that `load_weights` reads; and the
        safetensors file to write.
    model : str
        A quantised network of the catalogue.
    x_BCHW : Tensor
        The calibration set: float32 in [0, 1].
    options : mapping, optional
        Of ``create_model``, without ``mode``.

    Raises
    ------
    ModelError
        If the model has no such mode (a ``ValueError``).
    WeightsError
        If the weights do not fit.
    """
    shape: dict[str, Any] = {"in_channels": x_BCHW.shape[1], **(options or {})}
    literal = create_model(model, **shape)
    if not isinstance(literal, QuantisedNetwork):
        raise ModelError(f"{model} has no mode 'frozen': its statistics are fixed already")
    frozen = create_model(model, **{**shape, "mode": "frozen"})
    assert isinstance(frozen, QuantisedNetwork)
    load_weights(literal, path)
    frozen_copy(frozen, literal, x_BCHW)
    save_weights(frozen, output)
