"""Which study is evaluated, on what, and what the column that it fills is called."""

from __future__ import annotations

from dataclasses import dataclass

from robustray.errors import ManifestError
from robustray.evaluation.images import facts_of
from robustray.evaluation.networks import describe_model
from robustray.evaluation.plan import Images, Wanted, read_images
from robustray.evaluation.suites import resolve_threat, suite_of
from robustray.evaluation.task import Subject, Task
from robustray.evaluation.units.engines import load_engine
from robustray.manifest import Evaluation, JudgedData, JudgedThreat, SurrogateConfig
from robustray.manifest.fields import Extent, check_lengths
from robustray.models.weights.files import check_recorded
from robustray.store import ObjectStore, canonical_json, sha256_bytes
from robustray.sweeps import Study, Trial, load_study
from robustray.sweeps.exporting import find_selected


@dataclass(frozen=True)
class StudySetting:
    """What is the same for all trials of a study."""

    study: Study
    manifest: Evaluation
    images: Images
    wanted: Wanted
    label: str

    def prefix(self, trial: str) -> str:
        """Return where a trial's result is kept."""
        return f"{self.study.trial_prefix(trial)}/evaluations/{self.label}"


def resolve_study(manifest: Evaluation, store: ObjectStore, data_root: str | None) -> StudySetting:
    """Fill in from the study what an evaluation of it leaves open."""
    assert manifest.study is not None
    study = load_study(store, manifest.study)
    own, data = study.manifest.data, manifest.data
    if data.name not in (None, own.name):
        raise ManifestError(
            f"the study's data set is {own.name}, not {data.name}", path="data.name"
        )
    if data.transform not in (None, own.transform):
        raise ManifestError(
            "the study's networks were trained on other images; leave it out", path="data.transform"
        )
    limit = own.test_limit if data.split == "test" else None
    data = data.model_copy(
        update={
            "name": own.name,
            "arguments": own.arguments,
            "transform": own.transform,
            "first": data.first or limit,
            "validation": own.validation,
            "parts": own.parts,
            "download": data.download or own.download,
        }
    )
    sweep = study.manifest.evaluation.threat or study.manifest.recipe.threat
    threat_config = manifest.threat or JudgedThreat(norm=sweep.norm, eps=sweep.eps)
    try:
        check_lengths(manifest.lengths(threat_config), Extent.of(own.name, own.transform))
    except ValueError as error:
        raise ManifestError(str(error)) from error
    threat, engine = resolve_threat(threat_config), load_engine(manifest.engine)
    suite = suite_of(manifest, threat, engine)
    same_threat = (threat.norm, threat.eps) == (sweep.norm, sweep.eps)
    label = _label(manifest, study, data, suite.name, None if same_threat else threat_config)
    images = read_images(data, data_root, store)
    return StudySetting(study, manifest, images, Wanted("", threat, suite), label)


def _label(
    manifest: Evaluation, study: Study, data: JudgedData, suite: str, other: JudgedThreat | None
) -> str:
    """Name the column: the suite, and everything in which it differs from the study's own."""
    words = [suite]
    words += [manifest.suite_mode] if manifest.suite_mode else []
    words += [f"{other.norm}-{other.eps:.6g}"] if other else []
    words += [data.split] if data.split != "test" else []
    own = study.manifest.data.test_limit if data.split == "test" else None
    words += [f"first{data.first}"] if data.first != own else []
    words += [manifest.search_dtype] if manifest.search_dtype != "float32" else []
    words += ["fused"] if manifest.fused_blocks else []
    words += [_surrogate_word(manifest.surrogate)] if manifest.surrogate else []
    words += [manifest.engine] if manifest.engine != "robustray" else []
    if manifest.seed != 0 or (len(words) == 1 and suite in study.manifest.evaluation.attacks):
        words.append(f"seed{manifest.seed}")
    return "_".join(words)


def _surrogate_word(surrogate: SurrogateConfig) -> str:
    """Name a surrogate: by itself where nothing else is given, else with a short digest."""
    word = surrogate.name or str(surrogate.function).partition(":")[2]
    given = surrogate.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    return f"{word}-{sha256_bytes(canonical_json(given))[:6]}" if given else word


def selected_subject(store: ObjectStore, setting: StudySetting, trial: Trial) -> Subject:
    """Return a finished trial's selected network.

    Raises
    ------
    UserError
        If the bytes of its weights were not kept or are not known to be the selected ones, or it
        was trained behind another standardisation of its input than this robustray gives it.
    """
    found = find_selected(store, setting.study, trial.name)
    network = describe_model(
        trial.model, None, facts_of(setting.images.config), setting.manifest.surrogate
    )
    recorded = found.record.info.get("training", {}).get("standardisation")
    check_recorded(recorded, network.get("standardisation", {}), trial.name)
    return Subject(network, found.weights["sha256"], "safetensors", found.weights["key"])


def task_digest(task: Task, setting: StudySetting) -> str:
    """Hash all that a task's result depends on; shards are not among it."""
    last = task.identity(task.ranges[0], len(task.attacks)) | {"range": None}
    rest = {"images": setting.images.split.digest, "audit": setting.manifest.audit}
    if task.columns:  # the last attack's identity names those of its own column only
        rest["attacks"] = [dict(attack) for attack in task.attacks]
        rest["columns"] = [vars(column) for column in task.columns]
    return sha256_bytes(canonical_json(last | rest))
