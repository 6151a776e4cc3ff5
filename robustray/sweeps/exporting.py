"""A trial's selected network as a file: found, verified, and written with what to do with it."""

from __future__ import annotations

import json
import logging
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustray.errors import CorruptObjectError, UserError, choice_error
from robustray.files import write_atomically
from robustray.store import (
    CheckpointRecord,
    CheckpointStore,
    NotFoundError,
    ObjectStore,
    sha256_bytes,
)
from robustray.store.records import FileEntry
from robustray.sweeps.grid import Study, Trial
from robustray.sweeps.judging import find_best, further_accuracies
from robustray.sweeps.records import read_evaluations, read_results
from robustray.sweeps.trial import read_result

logger = logging.getLogger("robustray.sweeps")


@dataclass(frozen=True)
class Selected:
    """A finished trial's selected checkpoint.

    Attributes
    ----------
    result : mapping
        The trial's.
    record : CheckpointRecord
        The checkpoint's.
    weights : FileEntry
        Where the weights are that were judged, and their digest.
    """

    result: Mapping[str, Any]
    record: CheckpointRecord
    weights: FileEntry


@dataclass(frozen=True)
class Exported:
    """Weights that were written.

    Attributes
    ----------
    trial : str
        Whose they are.
    result : mapping
        The trial's.
    sha256 : str
        Of the file, and of the weights that were judged.
    accuracies : dict of str to float
        Under every attack and further suite that it met, in [0, 1].
    evaluate : str
        The command that evaluates the file.
    """

    trial: str
    result: Mapping[str, Any]
    sha256: str
    accuracies: Mapping[str, float]
    evaluate: str


def find_selected(store: ObjectStore, study: Study, trial: str) -> Selected:
    """Return a finished trial's selected checkpoint.

    Raises
    ------
    UserError
        If its bytes were not kept, or are not known to be the selected ones.
    """
    prefix = study.trial_prefix(trial)
    result = read_result(store, prefix)
    assert result is not None, "only a finished trial has a selected checkpoint"
    checkpoints = CheckpointStore(store, prefix, Path(tempfile.gettempdir()))
    try:
        record = checkpoints.record(result["selected_epoch"])
    except NotFoundError as error:
        raise UserError(
            "the record of its selected checkpoint is damaged: delete its result.json and run the "
            "study again, to train it anew"
        ) from error
    wanted = result["weights_sha256"]
    entry = next((e for e in record.files.values() if e["sha256"] == wanted), None)
    if record.state == "pruned" or entry is None:
        raise UserError("its selected checkpoint was not kept (retention.keep of the study)")
    return Selected(result, record, entry)


def export_weights(store: ObjectStore, study: Study, trial: str | None, path: Path) -> Exported:
    """Write the selected weights of a trial, or of the best one, as safetensors.

    Parameters
    ----------
    store : ObjectStore
        Where the study is.
    study : Study
        The study.
    trial : str or None
        The trial; None: the best, as the study's report says.
    path : Path
        The file; must not be there.

    Raises
    ------
    UserError
        If there is such a file, or no such trial that is finished, or its weights were not kept.
    CorruptObjectError
        If the bytes are not those that were judged.
    """
    if path.exists():
        raise UserError(f"{path} exists; name a new file, or remove it")
    results = read_results(store, study)
    if not results:
        raise UserError(f"no trial of {study.id} is finished: see robustray status")
    name = trial or _find_best(store, study, results)
    by_name = {trial.name: trial for trial in study.trials}
    if name not in by_name:
        raise choice_error("trial", name, by_name)
    if name not in results:
        raise UserError(f"{name} is not finished: see robustray status --study {study.id}")
    try:
        found = find_selected(store, study, name)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    content, sha256 = store.get(found.weights["key"]), found.weights["sha256"]
    if sha256_bytes(content) != sha256:
        raise CorruptObjectError(f"{found.weights['key']} does not have the digest it names")
    accuracies = dict(found.result["metrics"])
    try:
        accuracies |= further_accuracies(read_evaluations(store, study.trial_prefix(name)))
    except CorruptObjectError as error:  # the weights are whole all the same
        logger.warning("%s; accuracies of further suites are left out", error)
    write_atomically(path, content)
    command = evaluate_command(study, by_name[name], path)
    return Exported(name, found.result, sha256, accuracies, command)


def _find_best(store: ObjectStore, study: Study, results: Mapping[str, Mapping[str, Any]]) -> str:
    best = find_best(store, study, results)
    if best is None:
        raise UserError(f"{study.id} has judged no trial yet: name one with --trial")
    return best.name


def evaluate_command(study: Study, trial: Trial, path: Path) -> str:
    """Return the command that attacks exported weights on the images of their study."""
    data, threat = study.manifest.data, study.manifest.evaluation.threat
    cut = data.transform
    threat = threat or study.manifest.recipe.threat
    settings: dict[str, Any] = {
        "model": trial.model.model_dump(mode="json", exclude_none=True),
        "data.name": data.name,
        "data.arguments": data.arguments,
        "data.transform": cut if isinstance(cut, str) or cut is None else cut.model_dump(),
        "data.first": data.test_limit,
        "threat.norm": threat.norm,
        "threat.eps": threat.eps,
    }
    words = ["robustray", "evaluate", "--weights", str(path)]
    for field, value in settings.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            words += ["--set", f"{field}={text}"]
    return shlex.join(words)
