"""From a published file of weights to safetensors, with a report, and quantised weights frozen."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustray.errors import ModelError
from robustray.models.architectures.quantised import QuantisedNetwork, frozen_copy
from robustray.models.counting import building_on_meta
from robustray.models.registry import create_model
from robustray.models.weights.files import LoadReport, load_weights, save_weights, select_weights
from robustray.registry import MODELS


@dataclass(frozen=True)
class Conversion:
    """What was read, and what was written.

    Attributes
    ----------
    report : LoadReport
        How the file fitted the model.
    output : Path
        The safetensors file.
    sha256 : str
        Digest of it.
    """

    report: LoadReport
    output: Path
    sha256: str

    def __str__(self) -> str:
        """Say it in a few lines."""
        report = self.report
        lines = [
            f"read       {len(report.matched)} tensors as {report.format}, sha256 {report.sha256}",
        ]
        if report.renamed:
            old, new = next(iter(report.renamed.items()))
            lines.append(f"renamed    {len(report.renamed)}, such as {old} to {new}")
        if report.constants:
            lines.append(f"compared   {', '.join(report.constants)}: equal to the network's own")
        if report.filled:
            lines.append(f"set to 0   {len(report.filled)} counters that the file lacks")
        if report.ignored:
            lines.append(f"ignored    {', '.join(report.ignored[:6])}")
        if report.assumed:
            lines.append(f"assumed    {'; '.join(report.assumed)}: the file does not tell")
        if report.dropped:
            lines.append(f"left out   objects of {', '.join(report.dropped)}")
        return "\n".join([*lines, f"wrote      {self.output}, sha256 {self.sha256}"])


def convert_weights(
    path: str | Path,
    output: str | Path,
    model: str | nn.Module,
    *,
    format: str = "auto",
    sha256: str | None = None,
    drop_objects: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Conversion:
    """Write published weights as safetensors under the model's own names.

    Parameters
    ----------
    path, output : str or Path
        The file as published, and the safetensors file to write (replaced if there is one).
    model : str or nn.Module
        Name in the catalogue or of another library; or a network of one's own, which is left as
        it was.
    format : str
        As in `robustray.models.load_weights`.
    sha256 : str, optional
        Digest that the file must have.
    drop_objects : bool
        As in `robustray.models.weights.reading.read_file`.
    options : mapping, optional
        Of ``create_model``. Of no use for a network of one's own.

    Returns
    -------
    Conversion
        For printing.

    Raises
    ------
    ModelError
        For a model or option that does not exist.
    WeightsError
        If the file has another digest, can't be read, or does not fit the model in every name.
    OSError
        If the file is not there, or the other can't be written.
    """
    if isinstance(model, str):
        given = dict(options or {})
        brought = MODELS.is_brought(model)  # may not be possible without numbers
        if MODELS.library(model):
            given["trained"] = False
        with torch.random.fork_rng(devices=[]) if brought else building_on_meta():
            network = create_model(model, **given)
    else:
        if options:
            raise ModelError("options are those of a model of the catalogue")
        network = copy.deepcopy(model)
    expected = network.state_dict()
    report, tensors = select_weights(
        network, path, format, sha256=sha256, drop_objects=drop_objects
    )
    network.load_state_dict(
        {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}, assign=True
    )
    output = Path(output)
    save_weights(network, output)
    with output.open("rb") as file:
        written = hashlib.file_digest(file, "sha256").hexdigest()
    return Conversion(report, output, written)


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
