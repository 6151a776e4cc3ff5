"""Training a mixed classifier as one job: its bases, the network that weighs them, the verdicts.

The steps that are committed: epochs of the bases that have a recipe, segments of the mixing
network's training, then one step for each thing that is judged.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustray.data import data_root, describe
from robustray.errors import CorruptObjectError, ManifestError, below
from robustray.evaluation.subjects import local_copy
from robustray.manifest import WeightsConfig
from robustray.models import ModelError, create_model, load_weights, save_weights
from robustray.models.architectures.composite import Composite
from robustray.models.counting import building_on_meta
from robustray.random import derive_seed
from robustray.runtime.file_jobs import Product
from robustray.runtime.job import Context, Resumed
from robustray.smoothing.job.attackers import Attackers
from robustray.smoothing.job.judging import Judgements, check_judging, judge, judged_names
from robustray.smoothing.job.outputs import outputs
from robustray.smoothing.manifest import Mixing
from robustray.smoothing.train import MixingTraining, attack_here
from robustray.store import NotFoundError, ObjectStore, sha256_file
from robustray.store.staged_data import load_staged_dataset
from robustray.training import TrainingState, fit
from robustray.training.loop import run_epochs

BASES = ("accurate", "robust")
_MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class Stages:
    """Which steps belong to what: stage name to (steps before it, steps up to its end)."""

    spans: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, manifest: Mixing) -> Stages:
        """Lay out a manifest's steps; nothing is read."""
        rounds = describe(manifest.data).train // manifest.recipe.batch_size
        commits = manifest.recipe.epochs * -(-rounds // manifest.recipe.segment)
        if commits > _MOST_STEPS:
            raise ManifestError(
                f"{commits:,} segments would be committed; at most {_MOST_STEPS:,}: make "
                "recipe.segment longer",
                path="recipe.epochs",
            )
        if rounds < 1:
            raise ManifestError(
                f"{describe(manifest.data).train} training images are fewer than a batch",
                path="recipe.batch_size",
            )
        attacks = 1 + min(manifest.recipe.attack.n_targets, describe(manifest.data).num_classes - 1)
        if 2 * attacks % manifest.recipe.accumulation:
            raise ManifestError(
                f"a round has {2 * attacks} minibatches, twice its attacks; "
                f"{manifest.recipe.accumulation} does not divide that",
                path="recipe.accumulation",
            )
        lengths = {role: _epochs(manifest, role) for role in BASES}
        lengths |= {"mixing": commits, "judging": len(judged_names(manifest.judging))}
        spans, before = {}, 0
        for stage, length in lengths.items():
            spans[stage] = (before, before + length)
            before += length
        return cls(spans)

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.spans["judging"][1]


def build_composite(manifest: Mixing) -> Composite:
    """Build a manifest's mixture, with the constants that it is judged with.

    Raises
    ------
    ManifestError
        If there is no such network, or its bases can't be mixed.
    """
    facts = describe(manifest.data)
    options = {
        "accurate": manifest.accurate.model.model_dump(exclude_none=True),
        "robust": manifest.robust.model.model_dump(exclude_none=True),
        "mixing": manifest.mixing.model_dump(exclude_none=True),
        "constants": manifest.constants.model_dump(exclude_none=True),
    }
    try:
        built = create_model(
            "adaptive_smoothing",
            num_classes=facts.num_classes,
            in_channels=facts.image_shape[0],
            policy_graph=manifest.policy_graph,
            resize=manifest.resize,
            **options,
        )
    except (ModelError, TypeError) as error:
        raise ManifestError(str(error), path="accurate, robust, mixing or constants") from error
    assert isinstance(built, Composite)
    return built


def check_manifest(manifest: Mixing) -> None:
    """Refuse now what would only be found out after hours: networks, attacks, files.

    Raises
    ------
    ManifestError
        Names the field.
    """
    Stages.of(manifest)
    facts = describe(manifest.data)
    shape = {"num_classes": facts.num_classes, "in_channels": facts.image_shape[0]}
    with building_on_meta():
        for role in BASES:
            model = getattr(manifest, role).model
            try:
                create_model(model.name, **shape, **model.options())
            except (ModelError, TypeError) as error:
                raise ManifestError(str(error), path=f"{role}.model") from error
        build_composite(manifest)
    check_judging(manifest.judging)
    for role in BASES:
        weights = getattr(manifest, role).weights
        if weights is not None and "://" not in weights.uri and not Path(weights.uri).is_file():
            raise ManifestError(f"there is no file {weights.uri}", path=f"{role}.weights.uri")


def check_references(manifest: Mixing, store: ObjectStore, root: Path | None = None) -> None:
    """Refuse weights that are not there or don't fit, and data that are missing or damaged.

    Raises
    ------
    UserError
        Names the field, or the file.
    """
    load_staged_dataset(manifest.data, data_root(root), store)
    if all(getattr(manifest, role).weights is None for role in BASES):
        return
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and thrown away
        composite = build_composite(manifest)
    for role, base in zip(BASES, composite.models, strict=True):
        weights = getattr(manifest, role).weights
        if weights is not None:
            _load_base(role, base, weights, store)


def train_mixing(context: Context) -> Product:
    """Do the whole job, or what is left of it; see `robustray.runtime.job`."""
    try:
        return _MixingJob(context).product()
    except (CorruptObjectError, NotFoundError):
        context.checkpoints.truncate(0)  # what it built on is lost: begin again
        raise


class _MixingJob:
    """One attempt: what is there, and what is done next."""

    def __init__(self, context: Context) -> None:
        self.context, self.manifest = context, context.job.manifest
        self.stages = Stages.of(self.manifest)
        self.resumed: Resumed | None = context.resume()
        self.done = self.resumed.step if self.resumed else 0
        # What every commit carries on: selected epochs and digests of bases, verdicts so far.
        self.carry: dict[str, Any] = dict(self.resumed.info["carry"]) if self.resumed else {}
        root = data_root(Path(context.job.data_root))
        self.data = load_staged_dataset(self.manifest.data, root, context.store)

    def product(self) -> Product:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.manifest.seed, "initialisation"))
            composite = build_composite(self.manifest)
        device = self.context.device
        for role, base in zip(BASES, composite.models, strict=True):
            self.base(role, base)
        composite.requires_grad_(False).to(device)
        assert composite.policy_net is not None
        composite.policy_net.requires_grad_(True)
        self.mix(composite)
        judgements = self.judge(composite.eval())
        files = outputs(judgements, self.manifest, self.data.label)
        files["mixture.safetensors"] = _as_file(composite, self.context.scratch)
        result = {
            "data": {"label": self.data.label, "digest": self.data.digest},
            "bases": self.carry["bases"],
            "metrics": judgements.metrics(),
        }
        return Product(result, files)

    def base(self, role: str, model: nn.Module) -> None:
        """Load a base's weights, or train it."""
        config = getattr(self.manifest, role)
        bases = self.carry.setdefault("bases", {})
        if config.weights is not None:
            digest = _load_base(role, model, config.weights, self.context.store)
            if bases.setdefault(role, {"sha256": digest}) != {"sha256": digest}:
                raise ManifestError(
                    f"{config.weights.uri} has other bytes than when this job began",
                    path=f"{role}.weights.uri",
                )
            return
        before, end = self.stages.spans[role]
        if self.done < end:
            self._fit(role, model, before)
        selected = bases[role]["selected_epoch"] + before
        model.load_state_dict(self._load(selected, "ema", "weights"))

    def _fit(self, role: str, model: nn.Module, before: int) -> None:
        recipe = getattr(self.manifest, role).recipe
        resume = None
        if self.resumed is not None and self.done > before:
            resume = TrainingState(self.resumed.files, self.resumed.info["training"])
        # A base of a mixture does not learn by its mixture's rules: its gradients are its own.
        model.requires_grad_(True).train()

        def commit(report: Any, state: Any) -> None:
            snapshot = state()
            self.carry["bases"][role] = {
                "selected_epoch": report.best_epoch,
                "validation_accuracy": report.best_accuracy,
            }
            self._commit(
                before + report.epoch,
                snapshot.files,
                {"training": snapshot.info},
                {f"{role}_{name}": value for name, value in report.metrics.items()},
                {f"{role}_{name}": value for name, value in report.timing.items()},
            )

        with below(role):
            fit(
                model,
                self.data,
                recipe,
                seed=derive_seed(self.manifest.seed, f"training-{role}"),
                device=self.context.device,
                resume=resume,
                on_epoch=commit,
            )
        model.requires_grad_(False).eval()

    def mix(self, composite: Composite) -> None:
        """Train the mixing network; its constants are those of training meanwhile."""
        before, end = self.stages.spans["mixing"]
        judged, recipe = composite.constants, self.manifest.recipe
        if self.done >= end:
            mixing = self._load(end, "mixing")
            composite.load_state_dict(mixing, strict=False)
            return
        composite.constants = replace(
            judged, gamma_scale=recipe.gamma_scale, gamma_bias=recipe.gamma_bias
        )
        composite.scale_alpha = False
        train = self.data.train.to(self.context.device)
        workers = self.manifest.resources.workers - 1
        with closing(Attackers(composite, self.context.job.resources, workers)) as attackers:
            training = MixingTraining(
                composite,
                train.x_NCHW.float() / 255,
                train.y_N,
                recipe,
                seed=derive_seed(self.manifest.seed, "mixing"),
                attacker=attackers.begin if workers else attack_here,
            )
            resumed = None
            if self.resumed is not None and self.done > before:
                resumed = self.done - before, TrainingState(self.resumed.files, {})

            def commit(number: int, metrics: dict[str, float], copy: Any) -> None:
                self._commit(before + number, copy().files, {}, metrics)

            run_epochs(training, end - before, resumed=resumed, on_epoch=commit)
        composite.scale_alpha = None
        composite.constants = judged

    def judge(self, composite: Composite) -> Judgements:
        """Judge what is not judged yet, one step each."""
        before, _ = self.stages.spans["judging"]
        names = judged_names(self.manifest.judging)
        found = Judgements({}, {})
        if self.resumed is not None and self.done > before:
            found = Judgements(dict(self.carry["judged"]), dict(self.resumed.files["judged"]))
        test = self.data.test.select(slice(self.manifest.judging.first)).to(self.context.device)
        for number, name in enumerate(names, before + 1):
            if number <= self.done:
                continue
            judge(name, composite, test, self.manifest, found)
            self.carry["judged"] = found.numbers
            metrics = {f"{name}_{key}": value for key, value in found.numbers[name].items()}
            self._commit(number, {"judged": found.tensors}, {}, metrics)
        return found

    def _commit(
        self,
        step: int,
        files: dict[str, dict[str, Tensor]],
        info: dict[str, Any],
        metrics: dict[str, float],
        timing: dict[str, float] | None = None,
    ) -> None:
        numbers = {name: float(value) for name, value in metrics.items()}
        carried = {**info, "carry": self.carry}
        self.context.commit(step, files, carried, metrics=numbers, timing=timing, keep=self._kept())

    def _kept(self) -> set[int]:
        """Return steps that later ones need: selected epochs, the end of the mixing network."""
        kept = {self.stages.spans["mixing"][1]}
        for role, known in self.carry.get("bases", {}).items():
            if known.get("selected_epoch") is not None:
                kept.add(self.stages.spans[role][0] + known["selected_epoch"])
        return kept

    def _load(self, step: int, *names: str) -> dict[str, Tensor]:
        """Read the first of some payloads that a step has."""
        record = self.context.checkpoints.record(step)
        name = next(name for name in names if name in record.files)
        return self.context.checkpoints.load(record, name)


def _epochs(manifest: Mixing, role: str) -> int:
    recipe = getattr(manifest, role).recipe
    return recipe.epochs if recipe else 0


def _load_base(role: str, model: nn.Module, weights: WeightsConfig, store: ObjectStore) -> str:
    with local_copy(weights, store, f"{role}.weights") as path:
        digest = sha256_file(path)
        if weights.sha256 not in (None, digest):
            raise ManifestError(
                f"the SHA-256 of {weights.uri} is {digest}, not {weights.sha256}",
                path=f"{role}.weights.sha256",
            )
        try:
            load_weights(model, path, weights.format)
        except ValueError as error:
            raise ManifestError(str(error), path=f"{role}.weights") from error
    return digest


def _as_file(composite: Composite, scratch: Path) -> bytes:
    path = scratch / "mixture.safetensors"
    save_weights(composite, path)
    return path.read_bytes()
