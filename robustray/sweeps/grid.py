"""From a sweep's grid to its trials: one architecture, one recipe, one seed each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from robustray.data import DataFacts, describe
from robustray.errors import ManifestError
from robustray.manifest import ModelConfig, Sweep, dump_manifest, pin_code, study_id, validate
from robustray.manifest.sweep import GridSetting
from robustray.models import Profile, create_model, profile
from robustray.models.counting import building_on_meta
from robustray.registry import MODELS

__all__ = ["Study", "Trial", "expand", "profile_trials"]


@dataclass(frozen=True)
class Trial:
    """One setting of the grid.

    ``name`` is unique within the study and tells the setting: ``d4-4-4_w4-6-8``.
    """

    name: str
    model: ModelConfig
    seed: int

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return tuple((self.model.model_extra or {}).get("depths", ()))

    @property
    def widths(self) -> tuple[float, ...]:
        """Widening factor of each stage; empty where channels were given."""
        return tuple((self.model.model_extra or {}).get("widths", ()))


@dataclass(frozen=True)
class Study:
    """What one manifest of kind Sweep expands to.

    ``import_paths`` are folders that a user's code is imported from.
    """

    id: str
    manifest: Sweep
    trials: tuple[Trial, ...]
    import_paths: tuple[str, ...] = ()

    @classmethod
    def from_manifest(cls, manifest: Sweep, known_as: str | None = None) -> Study:
        """Expand a manifest; a stored study keeps the id that it is ``known_as``."""
        trials = tuple(expand(manifest))
        if known_as is None:
            manifest = pin_code(manifest)
        paths = (str(Path.cwd()),) if manifest.code else ()
        return cls(known_as or study_id(manifest), manifest, trials, paths)

    @property
    def prefix(self) -> str:
        """Key prefix of the study in the store."""
        return f"studies/{self.id}"

    def trial_prefix(self, name: str) -> str:
        """Key prefix of one trial in the store."""
        return f"{self.prefix}/trials/{name}"

    def manifest_yaml(self) -> str:
        """Return the resolved manifest as it is kept in the store."""
        return dump_manifest(self.manifest)


def study_from_document(document: dict[str, object], known_as: str, file: str) -> Study:
    """Rebuild a study from its stored manifest."""
    manifest = validate(document, file)
    if not isinstance(manifest, Sweep):
        raise ManifestError(f"a {manifest.kind} is no study", file, "kind", manifest.kind)
    return Study.from_manifest(manifest, known_as)


def expand(manifest: Sweep) -> list[Trial]:
    """Return the trials of a sweep in the grid's order; without a grid the one of its model.

    Raises
    ------
    ManifestError
        If the grid sets an option that the model also fixes by other means.
    """
    grid = manifest.grid
    if grid and grid.arguments:
        trials = _varied(manifest, grid.arguments)
    else:
        trials = _listed(manifest, grid.settings) if grid and grid.settings else _product(manifest)
    if manifest.narrow is None:
        return trials
    return [_narrowed(trial, manifest.narrow) for trial in trials]


def _product(manifest: Sweep) -> list[Trial]:
    """Return the trials of a grid of widths, depths or both."""
    grid, model = manifest.grid, manifest.model
    if grid is None:
        return [Trial(_name(model), model, manifest.seed)]
    if grid.widths and "channels" in model.options():
        raise ManifestError("fixes channels, and the grid varies widths", path="model.channels")
    width_rows = grid.widths.rows() if grid.widths else [None]
    depth_rows = grid.depths.rows() if grid.depths else [None]
    trials = []
    for depths, widths in product(depth_rows, width_rows):
        changes: dict[str, Any] = {"depths": depths and tuple(map(int, depths)), "widths": widths}
        setting = model.with_options({k: v for k, v in changes.items() if v is not None})
        trials.append(Trial(_name(setting), setting, manifest.seed))
    return trials


def _varied(manifest: Sweep, values: Mapping[str, Sequence[Any]]) -> list[Trial]:
    """Return the trials of a grid over options of the network, named by what they vary."""
    trials: dict[str, Trial] = {}
    for row in product(*values.values()):
        changes = dict(zip(values, row, strict=True))
        name = _spell_options(changes)
        if name in trials:
            raise ManifestError(f"two settings are called {name}", path="grid.arguments")
        trials[name] = Trial(name, manifest.model.with_options(changes), manifest.seed)
    return list(trials.values())


def _listed(manifest: Sweep, settings: tuple[GridSetting, ...]) -> list[Trial]:
    trials: dict[str, Trial] = {}
    for number, setting in enumerate(settings):
        place, changes = f"grid.settings[{number}]", setting.changes()
        given = manifest.model.options()
        fixed = [key for key in ("channels", "depths", "widths", "block") if key in given]
        if setting.name and fixed:
            raise ManifestError(f"{setting.name} fixes what model sets: {fixed}", path=place)
        if setting.widths and "channels" in given:
            raise ManifestError("model fixes channels, and this varies widths", path=place)
        model = manifest.model.model_copy(update=changes)
        name = "_".join([_name(model), *([setting.block] if setting.block else [])])
        if name in trials:
            raise ManifestError(f"another setting is {name} as well", path=place)
        trials[name] = Trial(name, model, manifest.seed)
    return list(trials.values())


def _narrowed(trial: Trial, factor: float) -> Trial:
    """Return the proxy of a trial: thinner, under the same name."""
    if not trial.widths:
        raise ManifestError(f"{trial.name} gives no widths to narrow", path="narrow", value=factor)
    widths = tuple(factor * width for width in trial.widths)
    return replace(trial, model=trial.model.with_options({"widths": widths}))


def profile_trials(study: Study) -> dict[str, Profile]:
    """Count parameters and MACs of every trial's network, on the meta device.

    Raises
    ------
    ManifestError
        If a setting of the grid is no possible network; names the trial and why.
    """
    facts = describe(study.manifest.data)
    return {trial.name: _profile(trial, facts) for trial in study.trials}


def profile_trial(study: Study, trial: Trial) -> Profile:
    """Count parameters and MACs of one trial's network; as `profile_trials`."""
    return _profile(trial, describe(study.manifest.data))


def build_model(trial: Trial, facts: DataFacts) -> torch.nn.Module:
    """Build a trial's network for a data set, on torch's current default device."""
    return create_model(
        trial.model.name,
        num_classes=facts.num_classes,
        in_channels=facts.image_shape[0],
        **trial.model.options(),
    )


def _profile(trial: Trial, facts: DataFacts) -> Profile:
    try:
        return _count(trial, facts)
    except ManifestError as error:
        path = f"model.{error.path}" if error.path else "model"
        raise ManifestError(error.message, path=path, value=trial.name) from error
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ManifestError(str(error), path="model", value=trial.name) from error


def _count(trial: Trial, facts: DataFacts) -> Profile:
    """Count on the meta device; on the CPU what a user brings and can't be built there."""
    try:
        with building_on_meta():
            model = build_model(trial, facts)
        return profile(model, facts.image_shape)
    except Exception:
        if not MODELS.is_brought(trial.model.name):
            raise
    with torch.random.fork_rng(devices=[]):
        return profile(build_model(trial, facts), facts.image_shape)


def _name(model: ModelConfig) -> str:
    """Return the name of a setting: its stages, else what it is called."""
    if model.arguments:
        return _spell_options(model.arguments)
    options = model.options()
    parts = [
        f"{key[0]}{'-'.join(f'{value:g}' for value in options[key])}"
        for key in ("depths", "widths", "channels")
        if key in options
    ]
    return "_".join(parts) or model.name.rpartition(":")[2]


def _spell_options(options: Mapping[str, Any]) -> str:
    """Write options as one word that may be a folder's: width2_pool-max."""
    parts = []
    for key, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        plain = "-".join(f"{v:g}" if type(v) in (int, float) else str(v).lower() for v in values)
        parts.append(f"{key}{plain}")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(parts))
