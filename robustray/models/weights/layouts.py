"""Where a file keeps the weights of a network, and what it calls them: found by evidence.

A file is flattened to dotted names of its tensors. A prefix of such names ("state_dict.module.")
is a place where the network may lie; how many of the network's own names and shapes follow it is
the evidence. So no wrapper has to be known by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robustray.data.formats.arrays import PickledArray
from robustray.errors import choice_error
from robustray.models.weights.direction_names import from_unet
from robustray.models.weights.quantised_names import from_tensorflow

_UNIT = re.compile(r"block(\d)/unit(\d\d)/([abc])/(.+)")
_OUTSIDE = {
    "root_block/standardized_conv2d/kernel": "root.conv.weight",
    "group_norm/gamma": "head.gn.weight",
    "group_norm/beta": "head.gn.bias",
    "head/conv2d/kernel": "head.conv.weight",
    "head/conv2d/bias": "head.conv.bias",
}


def from_bit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the arrays of a BiT ``.npz`` file under our names, kernels HWIO as OIHW.

    Parameters
    ----------
    state : mapping of str to Tensor
        Names begin with "resnet/". What is no array of these networks keeps its name.
    """
    return {
        _name(key): tensor.permute(3, 2, 0, 1).contiguous() if tensor.ndim == 4 else tensor
        for key, tensor in state.items()
    }


def _name(key: str) -> str:
    inner = key.removeprefix("resnet/")
    if inner in _OUTSIDE:
        return _OUTSIDE[inner]
    match = _UNIT.fullmatch(inner)
    if match is None:
        return key
    block, unit, letter, rest = match.groups()
    number = "abc".index(letter) + 1
    parts = {
        "standardized_conv2d/kernel": f"conv{number}.weight",
        "group_norm/gamma": f"gn{number}.weight",
        "group_norm/beta": f"gn{number}.bias",
        "proj/standardized_conv2d/kernel": "downsample.weight",
    }
    return f"body.block{block}.unit{unit}.{parts[rest]}" if rest in parts else key


Kind = Literal["safetensors", "torch", "tensorflow", "npz"]

# Names of formats that are no places within a file, and those places that have a short name. Of
# files with averaged and raw weights, model_state_dict holds the averaged ones.
FORMATS: dict[str, Kind] = {
    "safetensors": "safetensors",
    "bare": "torch",
    "state_dict": "torch",
    "model_state_dict": "torch",
    "unaveraged": "torch",
    "model": "torch",
    "composite": "torch",
    "tensorflow": "tensorflow",
    "bit": "npz",
    "npz": "npz",
}
_UNAVERAGED = "unaveraged_model_state_dict"
_COMPOSITE = re.compile(r"^_?comp_model\.")

# Never the weights that are meant, unless they are named.
_ONLY_BY_NAME = re.compile(
    r"(?i)unaveraged|(?:^|[._])(?:optim|optimi[sz]ers?|(?:lr_)?schedulers?|sched)(?:[._]|$)"
)

_DEPTH = 8
_NODES = 100_000
_PREFIXES = 32
_NAME_LENGTH = 1000

# Of data-parallel wrappers; of a network behind a normalising layer that has no tensors; and of
# RobustWRN, in its own code and in RobustBench's, whose tail norm is bn1 and whose projections are
# bare convolutions; of the gradient direction study's generators and critics; and of torchvision's
# files, whose modules were renamed later.
_SYNONYMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^module\."), ""),
    (re.compile(r"^[01]\."), ""),
    (re.compile(r"^module\."), ""),
    (re.compile(r"^bn1\."), "norm1."),
    (re.compile(r"\.convShortcut\."), ".shortcut.0."),
    (re.compile(r"^model\.(?=\d)"), "net."),
    (re.compile(r"^blocks\.(\d+)\.0\."), r"blocks.\1."),
    (re.compile(r"\.u0$"), ".u"),
    (re.compile(r"^output_layer\.0\.stored_"), "bn.running_"),
    (re.compile(r"^output_layer\.0\.gain$"), "bn.weight"),
    (re.compile(r"^output_layer\.0\.bias$"), "bn.bias"),
    (re.compile(r"^output_layer\.2\."), "out."),
    (re.compile(r"\.stored_(mean|var)$"), r".norm.running_\1"),
    (re.compile(r"(\bdenselayer\d+\.(?:norm|conv))\.(?=[12]\.)"), r"\1"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


@dataclass(frozen=True)
class Flat:
    """All tensors of a file.

    Attributes
    ----------
    tensors : mapping of str to Tensor
        By dotted name.
    homes : mapping of str to str
        For each name that of the mapping which holds the tensor, with a dot at its end; "" is the
        file's own mapping.
    names : mapping of str to str
        What a name is called where all names of the file tell it; most stay as they are.
    label : str
        What the kind of file is called as a format.
    """

    tensors: Mapping[str, Tensor]
    homes: Mapping[str, str]
    names: Mapping[str, str]
    label: str


@dataclass(frozen=True)
class NetworkPlace:
    """Where a network may lie: names that begin with ``prefix``, in the mapping ``home``."""

    prefix: str
    home: str
    format: str

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.prefix.rstrip(".") or "bare"

    def is_named(self, format: str) -> bool:
        """Tell whether a format that was asked for means this place."""
        path = {"bare": "", "unaveraged": _UNAVERAGED}.get(format, format)
        return format == self.format or path in (self.home[:-1], self.prefix[:-1])

    @property
    def only_by_name(self) -> bool:
        """Whether it is read only if it is asked for."""
        return _ONLY_BY_NAME.search(self.home) is not None


def flatten(values: Mapping[str, Any], kind: Kind, known: Mapping[str, str] | None = None) -> Flat:
    """Return the tensors of a file's content, those of TensorFlow and BiT under our names.

    ``known`` has the model's own names for others, as they stand in a mapping.
    """
    label: str = kind
    if kind == "tensorflow":
        values = from_tensorflow(values)
    elif kind == "npz" and any(name.startswith("resnet/") for name in values):
        label, values = "bit", from_bit(values)
    tensors: dict[str, Tensor] = {}
    homes: dict[str, str] = {}
    for home, name, tensor in _walk(values):
        if len(home) + len(name) <= _NAME_LENGTH:
            tensors[home + name], homes[home + name] = tensor, home
    names = {name: name for name in tensors} | from_unet(tensors)
    for full, home in homes.items():
        if own := (known or {}).get(full[len(home) :]):
            names[full] = home + own
    return Flat(tensors, homes, names, label)


def _walk(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Tensor]]:
    """Yield each tensor with its mapping's dotted name and its own, each container once."""
    waiting: list[tuple[str, int, Any]] = [("", 0, values)]
    seen, nodes = {id(values)}, 0
    while waiting:
        home, depth, container = waiting.pop()
        pairs = container.items() if isinstance(container, Mapping) else enumerate(container)
        for key, value in pairs:
            if isinstance(value, PickledArray) and value.value is not None:
                value = torch.from_numpy(value.value.copy())
            if not isinstance(value, Tensor | Mapping | list | tuple):
                continue
            nodes += 1
            if nodes > _NODES:
                return
            if isinstance(value, Tensor):
                yield home, str(key), value
            elif id(value) not in seen:
                seen.add(id(value))
                if depth < _DEPTH:
                    waiting.append((f"{home}{str(key)[:_NAME_LENGTH]}.", depth + 1, value))


def places(flat: Flat, expected: Mapping[str, Tensor]) -> list[NetworkPlace]:
    """Return where the network may lie, the most convincing place first.

    Mappings in which no name is one of the network's own come last, the largest first.
    """
    votes: Counter[str] = Counter()
    for name, tensor in flat.tensors.items():
        for prefix, inner in _splits(flat.names[name], flat.homes[name]):
            own = _renamed(inner, expected)
            if own in expected:
                votes[prefix] += 2 if expected[own].shape == tensor.shape else 1
    sizes = Counter(flat.homes.values())
    ranked = [prefix for prefix, _ in votes.most_common(_PREFIXES)]
    ranked += [home for home, _ in sizes.most_common(_PREFIXES) if home not in votes]
    homes = sorted(set(sizes) | {""}, key=len, reverse=True)
    found = []
    for prefix in ranked:
        home = next(home for home in homes if prefix.startswith(home))
        found.append(NetworkPlace(prefix, home, _format(flat.label, prefix, home)))
    return found


def _splits(name: str, home: str) -> Iterator[tuple[str, str]]:
    """Yield the ways to cut a name within its mapping in two, after a dot or at its beginning."""
    at = len(home)
    while True:
        yield name[:at], name[at:]
        dot = name.find(".", at)
        if dot < 0:
            return
        at = dot + 1


def _format(label: str, prefix: str, home: str) -> str:
    if label != "torch":
        return label
    if home == "":
        return "composite" if _COMPOSITE.match(prefix) else "bare"
    return "unaveraged" if home[:-1] == _UNAVERAGED else home[:-1]


def chosen(found: list[NetworkPlace], format: str, kind: Kind) -> list[NetworkPlace]:
    """Return those of some places that a format means.

    Raises
    ------
    ModelError
        If no file has such a format, and this one no such place.
    """
    if format == "auto":
        return [place for place in found if not place.only_by_name]
    if FORMATS.get(format, kind) != kind:
        return []
    named = [place for place in found if place.is_named(format)]
    if not named and format not in FORMATS:
        known = dict.fromkeys(("auto", *FORMATS, *(place.format for place in found)))
        raise choice_error("format of weights", format, known)
    return named


def our_name(name: str, expected: Container[str]) -> str:
    """Return what a tensor of a file is called in the model.

    Parameters
    ----------
    name : str
        In the file.
    expected : container of str
        The model's own names; none of them is ever changed.

    Returns
    -------
    str
        Perhaps still no name of the model's.
    """
    return _replaced(name, expected, _SYNONYMS)


def _renamed(name: str, expected: Container[str]) -> str:
    """Return a tensor's name without a look for wrappers."""
    return _replaced(name, expected, _SYNONYMS[3:])


def _replaced(
    name: str, expected: Container[str], patterns: tuple[tuple[re.Pattern[str], str], ...]
) -> str:
    for pattern, replacement in patterns:
        if name in expected:
            break
        name = pattern.sub(replacement, name)
    return name
