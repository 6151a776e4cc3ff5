"""Studies of gradient directions as jobs: one stage each, resumed epoch by epoch.

What a stage makes lies in its job's files: ``classifier.safetensors``, ``generator.safetensors``;
tables, figures and a page. A later stage names the job that made what it needs, or a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save as save_safetensors
from torch import nn

from robustray.alignment.classifier import fit_classifier
from robustray.alignment.conditional_gan import fit_conditional_generator
from robustray.alignment.delta_x import DeltaXSource, Direct, Exact, Nearest, Projected
from robustray.alignment.direct_generator import fit_direct_generator
from robustray.alignment.distances import TwoLogits, UnitImages
from robustray.alignment.job.building import (
    box_of,
    build_classifier,
    build_conditional,
    build_generator,
    is_binary,
    takes_unit_images,
)
from robustray.alignment.job.comparing import compare
from robustray.alignment.job.estimate import judge_delta_x
from robustray.alignment.job.files import (
    CLASSIFIER,
    GENERATOR,
    known_projections,
    load_made,
    made_of,
    make_projections,
)
from robustray.alignment.job.history import epoch_files
from robustray.alignment.job.judging import judge_classifier
from robustray.alignment.job.probe import probe
from robustray.alignment.manifest import AlignmentData
from robustray.alignment.splits import StudySplit, load_study
from robustray.data import data_root
from robustray.models.architectures.biggan import BigGanDeep
from robustray.models.architectures.conditional_networks import ConditionalGenerator
from robustray.random import derive_seed
from robustray.runtime.file_jobs import Product
from robustray.runtime.job import Context
from robustray.training.loop import Resumed
from robustray.training.state import TrainingState, copied_weights

_LARGE_AT_A_TIME = 5  # images of ImageNet that are projected together, as published
_Network = TypeVar("_Network", bound=nn.Module)


def align(context: Context) -> Product:
    """Do one stage; see `robustray.runtime.job`."""
    return _STAGES[context.job.manifest.stage](_Stage(context))


class _Stage:
    """What every stage has at hand."""

    def __init__(self, context: Context) -> None:
        self.context, self.manifest = context, context.job.manifest
        self.root = data_root(Path(context.job.data_root))
        self.device = context.device

    def split(self, role: str, limit: int | None = None) -> StudySplit:
        data: AlignmentData = self.manifest.data
        return load_study(
            data.name,
            role,
            root=self.root,
            cache=self.root / "study",
            limit=limit,
            limit_name="data.train_limit" if role == "train" else "data.first",
            folder=data.folder,
            arguments=data.arguments,
            preprocessing=data.preprocessing,
            seed=self.manifest.seed,
            download=data.download,
        )

    def train(self) -> StudySplit:
        """Load the training set; of the spheres no more than is read."""
        data, limit = self.manifest.data, self.manifest.data.train_limit
        settings = self.manifest.training or self.manifest.generator
        if (
            data.name == "spheres"
            and self.manifest.delta_x.source != "nearest"
            and settings is not None
            and settings.steps_per_epoch is not None
        ):
            limit = settings.batch_size  # trainings draw new points for each batch
        return self.split("train", limit)

    def judged(self) -> StudySplit:
        return self.split(self.manifest.data.split, self.manifest.data.first)

    def classifier(self, split: StudySplit) -> tuple[nn.Module, nn.Module]:
        """Build the classifier; return it as (B, K) logits, and the network whose weights count."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.manifest.seed, "initialisation"))
            inner = build_classifier(self.manifest, split)
        if is_binary(self.manifest):
            return TwoLogits(inner), inner
        return (UnitImages(inner) if takes_unit_images(self.manifest) else inner), inner

    def conditional(self) -> ConditionalGenerator | BigGanDeep:
        """Build the conditional generator that ``delta_x`` names, with its weights."""
        wanted, store = self.manifest.delta_x.generator, self.context.store
        assert wanted is not None
        generator = build_conditional(self.split("validation", 1), made_of(store, wanted))
        return self.with_generators_weights(generator)

    def with_generators_weights(self, generator: _Network) -> _Network:
        """Give a generator the weights that ``delta_x`` names."""
        wanted = self.manifest.delta_x.generator
        assert wanted is not None
        load_made(self.context.store, wanted, GENERATOR, generator, "delta_x.generator")
        return generator.to(self.device).eval()

    def source(
        self, known: StudySplit | None = None, *, judged: StudySplit | None = None
    ) -> DeltaXSource | None:
        """Build what gives delta-x of examples of the training set or the judged ones.

        Its generator's weights are another job's; projections that are in the store are read.
        """
        wanted = self.manifest.delta_x
        if wanted.source == "none":
            return None
        if wanted.source == "exact":
            return Exact(self.split("validation", 1))
        if wanted.source == "nearest":
            return Nearest(known or self.train())
        if wanted.source == "projected":
            generator = self.conditional()
            if isinstance(generator, BigGanDeep):  # of too many classes to project on all
                return Projected(generator, wanted.projection, compute_shape=_LARGE_AT_A_TIME)
            splits = [split for split in (known, judged) if split is not None]
            there = known_projections(
                generator, splits, wanted.projection, self.context.store, self.context.scratch
            )
            return Projected(generator, wanted.projection, there)
        assert wanted.generator is not None
        made = made_of(self.context.store, wanted.generator)
        return Direct(self.with_generators_weights(build_generator(self.manifest.data, made)))

    def commit(
        self, epoch: int, metrics: dict[str, float], copy: Callable[[], TrainingState]
    ) -> None:
        state = copy()
        self.context.commit(epoch, state.files, {"noted": state.info}, metrics=metrics)

    def epochs(self, selected: int | None = None, word: str = "Epoch") -> dict[str, bytes]:
        """Return table and figure of what the committed epochs gave."""
        return epoch_files(
            self.context.checkpoints.records(),
            selected=selected,
            title=self.manifest.name,
            word=word,
        )

    def resumed(self) -> Resumed | None:
        found = self.context.resume()
        if found is None:
            return None
        return found.step, TrainingState(found.files, found.info["noted"])


def _train_classifier(stage: _Stage) -> Product:
    manifest = stage.manifest
    assert manifest.training is not None
    train, validation = stage.train(), stage.split("validation")
    model, inner = stage.classifier(train)
    measured = validation if manifest.training.alignment != "none" else None
    fitted = fit_classifier(
        model, train, validation, manifest.training,
        box=box_of(manifest), delta_x=stage.source(train, judged=measured), seed=manifest.seed,
        device=stage.device, resumed=stage.resumed(), on_epoch=stage.commit,
    )  # fmt: skip
    model.load_state_dict(fitted.weights)
    result: dict[str, Any] = {"selected_epoch": fitted.best_epoch, "metrics": fitted.metrics}
    files = {CLASSIFIER: save_safetensors(copied_weights(inner))}
    files |= stage.epochs(fitted.best_epoch)
    if manifest.evaluation is not None:
        split = stage.judged()
        source = stage.source(train, judged=split)
        judged = judge_classifier(model.to(stage.device), split, manifest, source, box_of(manifest))
        result["metrics"] = {**fitted.metrics, **judged.metrics}
        files |= judged.files
    return Product(result, files)


def _train_generator(stage: _Stage) -> Product:
    manifest = stage.manifest
    settings = manifest.generator
    assert settings is not None
    train = stage.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(manifest.seed, "generator"))
        generator = build_generator(manifest.data, {"downsamplings": settings.downsamplings})
        critic = build_classifier(manifest, train)
    if settings.critic is not None:
        store = stage.context.store
        load_made(store, settings.critic, CLASSIFIER, critic, "generator.critic")
    fitted = fit_direct_generator(
        generator, critic, train, stage.split("validation"), settings,
        seed=manifest.seed, device=stage.device, resumed=stage.resumed(), on_epoch=stage.commit,
    )  # fmt: skip
    generator.load_state_dict(fitted.weights)
    judged = judge_delta_x(Direct(generator.to(stage.device)), stage.judged(), manifest)
    metrics = {**fitted.metrics, **judged.metrics}
    made = {"downsamplings": settings.downsamplings}
    result = {"selected_epoch": fitted.best_epoch, "metrics": metrics, "made": made}
    files = {GENERATOR: save_safetensors(copied_weights(generator)), **judged.files}
    return Product(result, files | stage.epochs(fitted.best_epoch))


def _train_conditional(stage: _Stage) -> Product:
    manifest = stage.manifest
    settings = manifest.conditional_generator
    assert settings is not None
    train = stage.train()
    generator = fit_conditional_generator(
        train.images(), train.y_N, settings, num_classes=train.num_classes, seed=manifest.seed,
        device=stage.device, resumed=stage.resumed(), on_epoch=stage.commit,
    )  # fmt: skip
    made = {"channels": settings.channels, "latent": settings.latent}
    files = {GENERATOR: save_safetensors(copied_weights(generator))}
    files |= stage.epochs(word=f"{settings.every} iterations")
    return Product({"metrics": {}, "made": made}, files)


def _evaluate(stage: _Stage) -> Product:
    manifest, split = stage.manifest, stage.judged()
    source = stage.source(judged=split)
    if manifest.weights is None:
        assert source is not None, "the manifest was checked for that"
        judged = judge_delta_x(source, split, manifest)
        return Product({"metrics": judged.metrics}, judged.files)
    model, inner = stage.classifier(split)
    load_made(stage.context.store, manifest.weights, CLASSIFIER, inner, "weights")
    judged = judge_classifier(model.to(stage.device), split, manifest, source, box_of(manifest))
    return Product({"metrics": judged.metrics}, judged.files)


def _project(stage: _Stage) -> Product:
    """Compute projections by actors beside this worker, and say how many there are."""
    manifest, data = stage.manifest, stage.manifest.data
    wanted, generator = manifest.projections, stage.conditional()
    assert wanted is not None
    assert isinstance(generator, ConditionalGenerator), "the manifest was checked for that"
    metrics, made = {}, {}
    for role in wanted.splits:
        limit = data.train_limit if role == "train" else data.first if role == data.split else None
        split = stage.split(role, limit)
        plan = make_projections(
            generator, split, wanted.classes, manifest.delta_x.projection, stage.context.store,
            stage.context.job.resources,
        )  # fmt: skip
        metrics[f"{role}_pairs"] = float(len(split) * len(plan.classes))
        made[role] = plan.digest
    return Product({"metrics": metrics, "made": made})


_STAGES: dict[str, Callable[[_Stage], Product]] = {
    "classifier": _train_classifier,
    "generator": _train_generator,
    "conditional_generator": _train_conditional,
    "projections": _project,
    "evaluation": _evaluate,
    "comparison": lambda stage: compare(stage.context),
    "probe": lambda stage: probe(stage.context, stage.root, stage.device),
}
