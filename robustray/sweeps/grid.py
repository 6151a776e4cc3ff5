"""From a sweep's grid to its trials: one architecture, one recipe, one seed each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import torch

from robustray.data import DataFacts, describe
from robustray.errors import ManifestError
from robustray.manifest import ModelConfig, Sweep, dump_manifest, study_id, validate
from robustray.manifest.schema import GridSetting
from robustray.models import Profile, create_model, profile

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
        return tuple(self.model.depths or ())

    @property
    def widths(self) -> tuple[float, ...]:
        """Widening factor of each stage; empty where channels were given."""
        return tuple(self.model.widths or ())


@dataclass(frozen=True)
class Study:
    """What one manifest of kind Sweep expands to."""

    id: str
    manifest: Sweep
    trials: tuple[Trial, ...]

    @classmethod
    def from_manifest(cls, manifest: Sweep, known_as: str | None = None) -> Study:
        """Expand a manifest; a stored study keeps the id that it is ``known_as``."""
        return cls(known_as or study_id(manifest), manifest, tuple(expand(manifest)))

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
    trials = _listed(manifest, grid.settings) if grid and grid.settings else _product(manifest)
    if manifest.narrow is None:
        return trials
    return [_narrowed(trial, manifest.narrow) for trial in trials]


def _product(manifest: Sweep) -> list[Trial]:
    """Return the trials of a grid of widths, depths or both."""
    grid, model = manifest.grid, manifest.model
    if grid is None:
        return [Trial(_name(model), model, manifest.seed)]
    if grid.widths and model.channels:
        raise ManifestError("fixes channels, and the grid varies widths", path="model.channels")
    width_rows = grid.widths.rows() if grid.widths else [model.widths]
    depth_rows = grid.depths.rows() if grid.depths else [model.depths]
    trials = []
    for depths, widths in product(depth_rows, width_rows):
        change = {
            "depths": None if depths is None else tuple(int(d) for d in depths),
            "widths": None if widths is None else tuple(widths),
        }
        setting = model.model_copy(update=change)
        trials.append(Trial(_name(setting), setting, manifest.seed))
    return trials


def _listed(manifest: Sweep, settings: tuple[GridSetting, ...]) -> list[Trial]:
    """Return the trials of a grid that lists its networks."""
    trials: dict[str, Trial] = {}
    for number, setting in enumerate(settings):
        place, changes = f"grid.settings[{number}]", setting.changes()
        fixed = [key for key in ("channels", "depths", "widths", "block")
                 if getattr(manifest.model, key) is not None]  # fmt: skip
        if setting.name and fixed:
            raise ManifestError(f"{setting.name} fixes what model sets: {fixed}", path=place)
        if setting.widths and manifest.model.channels:
            raise ManifestError("model fixes channels, and this varies widths", path=place)
        model = manifest.model.model_copy(update=changes)
        name = "_".join([_name(model), *([setting.block] if setting.block else [])])
        if name in trials:
            raise ManifestError(f"another setting is {name} as well", path=place)
        trials[name] = Trial(name, model, manifest.seed)
    return list(trials.values())


def _narrowed(trial: Trial, factor: float) -> Trial:
    """Return the proxy of a trial: thinner, under the same name."""
    if trial.model.widths is None:
        raise ManifestError(f"{trial.name} gives no widths to narrow", path="narrow", value=factor)
    widths = tuple(factor * width for width in trial.model.widths)
    return replace(trial, model=trial.model.model_copy(update={"widths": widths}))


def profile_trials(study: Study) -> dict[str, Profile]:
    """Count parameters and MACs of every trial's network, on the meta device.

    Raises
    ------
    ManifestError
        If a setting of the grid is no possible network; names the trial and why.
    """
    facts = describe(study.manifest.data)
    return {trial.name: _profile(trial, facts) for trial in study.trials}


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
        with torch.device("meta"):
            model = build_model(trial, facts)
        return profile(model, facts.image_shape)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ManifestError(str(error), path="model", value=trial.name) from error


def _name(model: ModelConfig) -> str:
    parts = [
        f"{letter}{'-'.join(f'{value:g}' for value in values)}"
        for letter, values in (("d", model.depths), ("w", model.widths), ("c", model.channels))
        if values
    ]
    return "_".join(parts) or model.name
