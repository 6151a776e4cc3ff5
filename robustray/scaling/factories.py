"""What is made of a user's factory: its networks, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from robustray.errors import ManifestError, ModelError
from robustray.models import Entry, Profile, create_model, find_model, profile
from robustray.models.counting import building_on_meta
from robustray.registry import MODELS, options_of
from robustray.scaling.ratios import Division
from robustray.user_code import call
from robustray.words import stages as spell

_CLASSES = 10  # where neither the caller nor the factory says how many

Factory = str | Callable[..., nn.Module]
Key = tuple[tuple[int, ...], tuple[float, ...]]  # depths and widths


class Maker:
    """Makes and counts the networks of a factory.

    Parameters
    ----------
    factory, num_classes, arguments
        As in `robustray.scaling.scale`.
    shape : tuple of int
        (C, H, W) of the image.

    Attributes
    ----------
    name : str
        Of the factory.
    takes : str
        What its widths are, unless its caller says otherwise: "factors" or "channels".
    builds : int
        How many networks were counted so far.
    """

    def __init__(
        self,
        factory: Factory,
        shape: tuple[int, int, int],
        num_classes: int | None,
        arguments: Mapping[str, Any],
    ) -> None:
        self._known: dict[Key, Profile] = {}
        self._further: dict[tuple[int, float], int] = {}
        self.builds = 0
        self._shape, self._fixed, self._on_meta = shape, dict(arguments), True
        self._named = isinstance(factory, str)
        if isinstance(factory, str):
            entry = find_model(factory)
        else:
            entry = Entry(getattr(factory, "__name__", type(factory).__name__), factory)
        self.name, self._function = entry.name, entry.build
        own = getattr(entry.build, "__module__", None) or ""
        is_own = not MODELS.is_brought(entry.name) if self._named else own.startswith("robustray.")
        self.takes = "factors" if is_own else "channels"
        self._complete(num_classes)

    def _complete(self, num_classes: int | None) -> None:
        """Check what the factory takes, and add the channels and classes that it wants."""
        options = options_of(self._function)
        known, is_open = options.model_fields, options.model_config.get("extra") == "allow"
        missing = [name for name in ("depths", "widths") if name not in known]
        if missing and not is_open:
            raise ModelError(
                f"{self.name} takes no {' and no '.join(missing)}, so it can't be scaled: a "
                "factory has both parameters, one value for each stage in each. It takes: "
                f"{', '.join(known) or 'nothing'}"
            )
        for name in ("depths", "widths"):
            if name in self._fixed:
                raise ModelError(f"arguments: {name} is what the rule finds; leave it out")
        for name, value in {"num_classes": num_classes, "in_channels": self._shape[0]}.items():
            if name in known or (is_open and value is not None):
                wanted = name in known and known[name].is_required()
                value = _CLASSES if value is None and wanted else value
                if value is not None:
                    self._fixed.setdefault(name, value)
            elif name == "num_classes" and value is not None:
                raise ModelError(f"{self.name} takes no num_classes; leave it out")

    def arguments(self, at: Division) -> dict[str, Any]:
        """Return all that the factory is given for a network."""
        whole = all(width.denominator == 1 for width in at.widths)
        widths = tuple(int(width) if whole else float(width) for width in at.widths)
        return {**self._fixed, "depths": at.depths, "widths": widths}

    def make(self, given: Mapping[str, Any]) -> nn.Module:
        """Build one network."""
        if self._named:
            return create_model(self.name, **given)
        built = call(self.name, self._function, given)
        if not isinstance(built, nn.Module):
            raise ModelError(f"{self.name} returns a {type(built).__name__}, not a torch.nn.Module")
        return built

    def count(self, at: Division) -> Profile:
        """Count a network of the path."""
        given = self.arguments(at)
        return self.count_with(given["depths"], given["widths"])

    def count_with(self, depths: tuple[int, ...], widths: tuple[float, ...]) -> Profile:
        """Count a network, once; on the meta device, or on the CPU if it can't be built there.

        Raises
        ------
        ModelError
            If it can't be made or counted; tells its depths and widths.
        """
        key = (depths, widths)
        if key not in self._known:
            self.builds += 1
            try:
                self._known[key] = self._count({**self._fixed, "depths": depths, "widths": widths})
            except (ModelError, ManifestError) as error:
                raise ModelError(
                    f"with depths {spell(depths)} and widths {spell(widths)}: {error}. If widths "
                    "have to be multiples of some number, give it (multiple)"
                ) from error
        return self._known[key]

    def _count(self, given: Mapping[str, Any]) -> Profile:
        if self._on_meta:
            try:
                with building_on_meta():
                    model = self.make(given)
                return profile(model, self._shape)
            except Exception:  # noqa: S110 (a user's code; what is wrong shows on the CPU)
                pass
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            counted = profile(self.make(given), self._shape)
        self._on_meta = False
        return counted

    def choose_counting(self, at: Division) -> Callable[[Division], int]:
        """Return what counts the multiply-accumulates of networks on a path.

        If all blocks of a stage but the first one cost the same, as those of the network ``at``
        do, the cost follows from networks of one and two blocks. Otherwise each is counted whole.
        """
        try:
            if self.extrapolate(at) == self.count(at).macs:
                return self.extrapolate
        except ModelError:  # it may refuse a single block; if all fails, counting says why
            pass
        return lambda other: self.count(other).macs

    def extrapolate(self, at: Division) -> int:
        """Return the multiply-accumulates of a network whose further blocks all cost the same."""
        given = self.arguments(at)
        depths, widths = given["depths"], given["widths"]
        ones = (1,) * len(depths)
        single = self.count_with(ones, widths).macs
        for stage, width in enumerate(widths):
            if (stage, width) not in self._further:
                two = (*ones[:stage], 2, *ones[stage + 1 :])
                self._further[stage, width] = self.count_with(two, widths).macs - single
        further = sum(
            (depth - 1) * self._further[stage, width]
            for stage, (depth, width) in enumerate(zip(depths, widths, strict=True))
        )
        return single + further
