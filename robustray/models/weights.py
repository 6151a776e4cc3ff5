"""Saving weights as safetensors, and loading them from that and from published layouts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from robustray.models.errors import WeightsError, choice_error
from robustray.models.layers import Standardize
from robustray.models.layouts import LAYOUTS, NORMALISATION, our_name
from robustray.models.reading import read_file
from robustray.models.tensor_bundle import files_of, index_of


@dataclass(frozen=True)
class LoadReport:
    """How the tensors of a file fitted a model.

    Attributes
    ----------
    matched : tuple of str
        Names in the model that got a tensor.
    missing : tuple of str
        Names in the model for which the file has none.
    unexpected : tuple of str
        Names in the file that the model does not have.
    mismatched : tuple of str
        "name: shape in the file, shape in the model".
    renamed : dict of str to str
        Names in the file that are called differently in the model.
    constants : tuple of str
        Names in the file that hold the constants of the input's standardisation; they are compared
        with the model's.
    format : str
        The layout that was read, a key of ``LAYOUTS``.
    sha256 : str
        Of the file.
    dropped : tuple of str
        Classes and functions whose objects in the file were left out.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    renamed: dict[str, str]
    constants: tuple[str, ...]
    format: str
    sha256: str
    dropped: tuple[str, ...] = ()

    @property
    def problems(self) -> int:
        """How many names do not fit; 0 for weights that can be loaded."""
        return len(self.missing) + len(self.unexpected) + len(self.mismatched)

    def __str__(self) -> str:
        """Say in a few lines what did not fit."""
        lines = [f"{len(self.matched)} tensors match (read as {self.format})"]
        for what in ("missing", "unexpected", "mismatched"):
            names = getattr(self, what)
            if names:
                rest = f", and {len(names) - 6} more" if len(names) > 6 else ""
                lines.append(f"{len(names)} {what}: {', '.join(names[:6])}{rest}")
        return "\n  ".join(lines)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's state dict as safetensors; the file appears whole or not at all.

    Parameters
    ----------
    model : nn.Module
        On any device but meta. Wrappers (compiled, data-parallel) are looked through.
    path : str or Path
        The file; its folder must exist. An existing file is replaced.

    Raises
    ------
    WeightsError
        If the model is on the meta device, or two of its tensors share memory.
    OSError
        If the file can't be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}")
    state = _real_state(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.replace(path)
    except RuntimeError as error:
        raise WeightsError(f"the model can't be saved: {error}") from error
    except SafetensorError as error:
        raise OSError(f"{path} can't be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(
    model: nn.Module, path: str | Path, format: str = "auto", *, sha256: str | None = None
) -> LoadReport:
    """Load weights into a model; all of them, or none if anything does not fit.

    Pickles are read with restricted unpickling, which builds tensors and plain containers only.

    Parameters
    ----------
    model : nn.Module
        On any device but meta; tensors are copied into it, and cast to its dtypes.
    path : str or Path
        A safetensors file, what ``torch.save`` wrote, or a TensorFlow checkpoint: its ``.index``
        file, prefix or folder. The digest of the latter is that of its files' digests.
    format : str
        A key of ``LAYOUTS``, or "auto": the one that fits best among those the file can be
        read as.
    sha256 : str, optional
        Digest that the file must have, in hexadecimal digits.

    Returns
    -------
    LoadReport
        What was mapped; nothing in it is missing, unexpected or mismatched.

    Raises
    ------
    WeightsError
        If the file has another digest, is damaged or of no known layout, or does not fit; ``str``
        of it lists the names (a ``ValueError``).
    FileNotFoundError
        If there is no such file.
    """
    _real_state(model)
    inner = _unwrapped(model)
    report, tensors = select_weights(inner, path, format, sha256=sha256)
    inner.load_state_dict(tensors, strict=True)
    return report


def select_weights(
    model: nn.Module,
    path: str | Path,
    format: str = "auto",
    *,
    sha256: str | None = None,
    drop_objects: bool = False,
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Return a file's tensors under a model's names, without loading them.

    Parameters and errors are those of `load_weights`; the model may be on the meta device, and
    ``drop_objects`` is that of `robustray.models.reading.read_file`.
    """
    if format != "auto" and format not in LAYOUTS:
        raise choice_error("format of weights", format, ("auto", *LAYOUTS))
    path = Path(path)
    digest = _digest(path, sha256)
    content = read_file(path, drop_objects=drop_objects)
    fits: list[tuple[LoadReport, dict[str, Tensor]]] = []
    for name, layout in LAYOUTS.items():
        if layout.container != content.container or format not in ("auto", name):
            continue
        if layout.by_name_only and format != name:
            continue
        state = layout.state_dict(content.values)
        if state is not None:
            fits.append(_fit(model.state_dict(), state, name, digest))
    if not fits:
        wanted = ", ".join(LAYOUTS) if format == "auto" else format
        raise WeightsError(f"{path}: a {content.container} file, but not of the format {wanted}")
    report, tensors = min(fits, key=lambda fit: fit[0].problems)
    if report.problems:
        raise WeightsError(f"{path} does not fit the model:\n  {report}")
    _check_constants(model, {name: tensors.pop(name) for name in report.constants}, path)
    return replace(report, dropped=content.dropped), tensors


def _digest(path: Path, expected: str | None) -> str:
    index = index_of(path)
    if index is None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    else:  # of several files: the digest of their digests
        whole = hashlib.sha256()
        for part in files_of(index):
            with part.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        digest = whole.hexdigest()
    if expected is not None and digest != expected.lower():
        raise WeightsError(f"the SHA-256 of {path} is {digest}, not {expected}")
    return digest


def _fit(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], format: str, digest: str
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Compare a file's tensors with a model's."""
    source: dict[str, str] = {}
    twice = [old for old in state if source.setdefault(our_name(old, expected), old) != old]
    tensors = {new: state[old] for new, old in source.items()}
    shared = [key for key in expected if key in tensors]
    bad = [key for key in shared if tensors[key].shape != expected[key].shape]
    constants = tuple(name for name in NORMALISATION if name in source and name not in expected)
    known = {*expected, *constants}
    report = LoadReport(
        matched=tuple(key for key in shared if key not in bad),
        missing=tuple(key for key in expected if key not in tensors),
        unexpected=(*(old for new, old in source.items() if new not in known), *twice),
        mismatched=tuple(
            f"{key}: {tuple(tensors[key].shape)} in the file, {tuple(expected[key].shape)} here"
            for key in bad
        ),
        renamed={old: new for new, old in source.items() if old != new},
        constants=constants,
        format=format,
        sha256=digest,
    )
    return report, tensors


def _check_constants(model: nn.Module, constants: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that were trained behind another standardisation than the model's."""
    if not constants:
        return
    layer = getattr(model, "pre_process", None)
    here = layer.constants if isinstance(layer, Standardize) else ((0.0,), (1.0,))
    for name, values in zip(NORMALISATION, here, strict=True):
        found = constants[name].flatten().double() if name in constants else torch.empty(0)
        wanted = torch.tensor(values, dtype=torch.double)
        if not found.numel() or not torch.allclose(*torch.broadcast_tensors(found, wanted)):
            given = {key: value.flatten().tolist() for key, value in constants.items()}
            raise WeightsError(
                f"{path}: its network standardises the input with {given}, and this one with "
                f"{dict(zip(NORMALISATION, here, strict=True))}; the option pre_process=true "
                "stands for CIFAR-10's constants"
            )


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the network within wrappers of torch.compile and of data parallelism."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ) and isinstance(model.module, nn.Module):
            model = model.module
        else:
            return model


def _real_state(model: nn.Module) -> dict[str, Tensor]:
    state = _unwrapped(model).state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        raise WeightsError("the model is on the meta device and has no weights; create it anew")
    return state
