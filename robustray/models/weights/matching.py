"""Which tensors of a file are a network's weights: all of them fit, or none is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustray.errors import WeightsError
from robustray.models.weights.layouts import (
    Flat,
    Kind,
    NetworkPlace,
    chosen,
    flatten,
    our_name,
    places,
)

# RobustBench keeps the constants of an input standardisation, (x - mu) / sigma, in the state dict;
# layers of others call them as below.
NORMALISATION = ("mu", "sigma")
_CONSTANTS = {"mu": "mu", "mean": "mu", "means": "mu", "sigma": "sigma", "std": "sigma",
              "sds": "sigma", "stds": "sigma"}  # fmt: skip
_CHANNELS = 4
_COUNTER = "num_batches_tracked"
_LOGGED = ".sv0"  # the largest singular value that BigGAN's spectral norm saw last
_SHOWN = 6


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
        Names in the file that are called differently in the model; of those in one mapping.
    constants : tuple of str
        Names in the file that hold the constants of the input's standardisation; they are compared
        with the model's.
    format : str
        Where the weights lay: a key of ``FORMATS``, or the dotted name of a mapping in the file.
    sha256 : str
        Of the file.
    dropped : tuple of str
        Classes and functions whose objects in the file were left out.
    filled : tuple of str
        Counters of batches that the file lacks; they carry nothing in evaluation, and are 0.
    ignored : tuple of str
        Names in the file of counters, and of other numbers that no output depends on, which the
        model does not have.
    assumed : tuple of str
        What decides the logits, and is no part of any such file: the model's own is used.
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
    filled: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

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
                lines.append(f"{len(names)} {what}: {_first(names)}")
        return "\n  ".join(lines)


@dataclass(frozen=True)
class Fit:
    """A place in a file, compared with a model.

    ``tensors`` are under the model's names, ``constants`` those of a standardisation. ``sources``
    are the names of both in the file; ``beside`` are those in the same mapping that do not begin
    with the place's prefix.
    """

    place: NetworkPlace
    report: LoadReport
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]
    sources: frozenset[str]
    beside: tuple[str, ...]


def find_weights(
    values: Mapping[str, Any],
    kind: Kind,
    expected: Mapping[str, Tensor],
    format: str,
    path: Path,
    known: Mapping[str, str] | None = None,
) -> Fit:
    """Return the tensors of a file that are the weights of a model.

    Parameters
    ----------
    values : mapping
        The file's content.
    kind : str
        The kind of file.
    expected : mapping of str to Tensor
        The model's state dict, perhaps on the meta device.
    format : str
        As in `robustray.models.load_weights`.
    path : Path
        The file, for messages.
    known : mapping of str to str, optional
        Names in files of this very network, and what the model calls them.

    Raises
    ------
    WeightsError
        If there are none, they do not fit, or several fit and differ.
    """
    flat = flatten(values, kind, known)
    candidates = chosen(places(flat, expected), format, kind)
    if not candidates:
        wanted = "auto (no mapping of names to tensors)" if format == "auto" else format
        raise WeightsError(
            f"{path}: a {kind} file, but not of the format {wanted}; it holds {_contents(values)}"
        )
    by_hand = format != "auto"
    fits = [_fit(place, flat, expected) for place in candidates]
    whole = [fit for fit in fits if not fit.report.problems]
    found = [_with_others(fit, whole, flat, by_hand) for fit in fits]
    best = [fit for fit in found if not fit.report.problems]
    if not best:
        closest = min(found, key=lambda fit: fit.report.problems)
        raise WeightsError(f"{path} does not fit the model:\n  {_explain(closest)}")
    best.sort(key=lambda fit: -len(fit.place.prefix))
    once = {fit.sources: fit for fit in best}  # each network by its shortest prefix
    best = sorted(once.values(), key=lambda fit: len(fit.place.prefix))
    first = best[0]
    for other in best:
        name = _difference(first, other)
        if name is not None:
            names = ", ".join(sorted(fit.place.name for fit in best))
            raise WeightsError(
                f"{path} holds several networks that fit, with different values ({name} is one): "
                f"{names}; name the one you mean as the format of the weights"
            )
    return first


def _fit(place: NetworkPlace, flat: Flat, expected: Mapping[str, Tensor]) -> Fit:
    source: dict[str, str] = {}
    twice, beside = [], []
    for full, inner in flat.names.items():
        if inner.startswith(place.prefix):
            name = our_name(inner[len(place.prefix) :], expected)
            if source.setdefault(name, full) != full:
                twice.append(full)
        elif flat.homes[full] == place.home:
            beside.append(full)
    constants = {name: flat.tensors[old] for name, old in source.items()
                 if name not in expected and _constant(name, flat.tensors[old])}  # fmt: skip
    tensors = {name: flat.tensors[old] for name, old in source.items() if name in expected}
    tensors |= {n: t.reshape(expected[n].shape) for n, t in tensors.items() if _is_counter(n, t)}
    filled = tuple(n for n in expected if n not in tensors and n.endswith(_COUNTER))
    tensors |= {name: torch.zeros(expected[name].shape, dtype=torch.int64) for name in filled}
    bad = [n for n, tensor in tensors.items() if tensor.shape != expected[n].shape]
    strange = [old for n, old in source.items() if n not in expected and n not in constants]
    strange += twice
    ignored = [old for old in strange if _says_nothing(old, flat.tensors[old])]
    start = len(place.home)
    report = LoadReport(
        matched=tuple(n for n in expected if n in tensors and n not in (*bad, *filled)),
        missing=tuple(n for n in expected if n not in tensors),
        unexpected=tuple(old[start:] for old in strange if old not in ignored),
        mismatched=tuple(
            f"{n}: {tuple(tensors[n].shape)} in the file, {tuple(expected[n].shape)} here"
            for n in bad
        ),
        renamed={old[start:]: n for n, old in source.items() if old[start:] != n},
        constants=tuple(constants),
        format=place.format,
        sha256="",
        filled=filled,
        ignored=tuple(old[start:] for old in ignored),
    )
    return Fit(place, report, tensors, constants, frozenset(source.values()), tuple(beside))


def _with_others(fit: Fit, whole: list[Fit], flat: Flat, by_hand: bool) -> Fit:
    """Account for what stands beside the network in its mapping.

    That may be the network again, a counter, or the constants of a standardisation. Whatever else
    it is may be a part of the computation: only a person can say that it is not.
    """
    again = [other.place.prefix for other in whole if other.place != fit.place]
    alone = [old for old in fit.beside if not any(old.startswith(prefix) for prefix in again)]
    start = len(fit.place.home)
    found = [old for old in alone if _constant(old, flat.tensors[old])]
    constants = {**fit.constants, **{old[start:]: flat.tensors[old] for old in found}}
    rest = [old for old in alone if old not in found]
    ignored = [old for old in rest if by_hand or _says_nothing(old, flat.tensors[old])]
    report = replace(
        fit.report,
        constants=tuple(constants),
        unexpected=fit.report.unexpected + tuple(old[start:] for old in rest if old not in ignored),
        ignored=fit.report.ignored + tuple(old[start:] for old in ignored),
    )
    return replace(fit, report=report, constants=constants)


def _explain(fit: Fit) -> str:
    """Say what does not fit, and what to do where the network itself does."""
    report, text = fit.report, str(fit.report)
    inside = fit.place.prefix != fit.place.home
    if inside and not report.missing and not report.mismatched:
        text += (
            "\n  the network itself is whole; if the rest is no part of it, name its place: "
            f"format {fit.place.name}"
        )
    return text


def constant_role(name: str) -> str:
    """Return "mu" or "sigma" for the name of a constant."""
    return _CONSTANTS[name.rpartition(".")[2]]


def _constant(name: str, tensor: Tensor) -> bool:
    return name.rpartition(".")[2] in _CONSTANTS and 0 < tensor.numel() <= _CHANNELS


def _is_counter(name: str, tensor: Tensor) -> bool:
    return name.endswith(_COUNTER) and tensor.numel() == 1


def _says_nothing(name: str, tensor: Tensor) -> bool:
    """Tell single numbers that no output depends on: counters, and what was only logged."""
    logged = name.endswith((_COUNTER, _LOGGED))
    return tensor.numel() == 1 and (logged or not tensor.is_floating_point())


def _difference(a: Fit, b: Fit) -> str | None:
    """Return the name of a tensor in which two fits differ, or None."""
    for name, tensor in a.tensors.items():
        if not same_values(tensor, b.tensors[name]):
            return name
    return None


def same_values(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors hold the same numbers, NaN being the same as NaN."""
    if a is b:
        return True
    if a.shape != b.shape:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _contents(values: Mapping[Any, Any]) -> str:
    """Return the first names in a file, and what they hold."""
    names = [f"{str(key)[:60]} ({_kind_of(value)})" for key, value in values.items()]
    return _first(tuple(names)) or "nothing"


def _kind_of(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    sized = f" of {len(value)}" if isinstance(value, list | tuple | Mapping) else ""
    return f"{type(value).__name__}{sized}"


def _first(names: tuple[str, ...]) -> str:
    rest = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{rest}"
