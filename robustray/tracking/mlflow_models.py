"""Checkpoints as models of MLflow: logged once, registered once, loadable by ``mlflow.pyfunc``."""

# MLflow's types are incomplete.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustray.errors import CorruptObjectError
from robustray.store import sha256_bytes
from robustray.tracking.limits import tidy_name
from robustray.tracking.records import ModelRecord, flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

ALIAS = "best"
_WEIGHTS_TAG = "weights_sha256"
_NOTE_TAG = "mlflow.note.content"
_VERSIONS_TAG = "mlflow.modelVersions"
_NOT_IN_NAMES = re.compile(r"[/:.%\"']+")
_NEEDED = ("robustray", "torch", "numpy", "safetensors", "mlflow")


def log_models(
    client: MlflowClient, experiment_id: str, run_id: str, models: Sequence[ModelRecord]
) -> None:
    """Have MLflow hold each of some models of a run, once; register those that are to be.

    A model that was not finished is begun again.

    Raises
    ------
    CorruptObjectError
        If the bytes of one are not those of its digest.
    """
    if not models:
        return
    known = _list(client, experiment_id, run_id)
    for record in models:
        found = _find(client, known, record)
        model = found or _log(client, experiment_id, run_id, record)
        _link(client, run_id, model, record.step)
        if record.description and model.tags.get(_NOTE_TAG) != record.description:
            client.set_logged_model_tags(model.model_id, {_NOTE_TAG: record.description})
        if record.registered is not None:
            _register(client, run_id, model, record.registered, record.description)


def _list(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    found: list[LoggedModel] = []
    token = None
    while token is None or token:
        page = client.search_logged_models(
            [experiment_id], f"source_run_id = '{run_id}'", page_token=token
        )
        found += page
        token = page.token or ""
    return found


def _find(
    client: MlflowClient, known: Sequence[LoggedModel], record: ModelRecord
) -> LoggedModel | None:
    """Return the whole model of a record, if there is one; what is left of others goes."""
    same = [
        model
        for model in known
        if model.tags.get(_WEIGHTS_TAG) == record.weights_sha256
        and model.name == _model_name(record.name)
    ]
    for model in same:
        if str(model.status) != "READY":
            client.delete_logged_model(model.model_id)
    return next((model for model in same if str(model.status) == "READY"), None)


def _log(client: MlflowClient, experiment_id: str, run_id: str, record: ModelRecord) -> LoggedModel:
    weights = record.fetch()
    if sha256_bytes(weights) != record.weights_sha256:
        raise CorruptObjectError(f"the weights of {record.name} are not those of its result")
    model = client.create_logged_model(
        experiment_id,
        name=_model_name(record.name),
        source_run_id=run_id,
        tags={_WEIGHTS_TAG: record.weights_sha256},
        params={"epoch": str(record.step), **flatten(dict(record.network["model"]))},
        model_type="classifier",
    )
    with tempfile.TemporaryDirectory(prefix="robustray-model-") as folder:
        whole = _write(Path(folder), record, weights, run_id, model.model_id)
        client.log_model_artifacts(model.model_id, str(whole))
    _log_metrics(client, run_id, model.model_id, record)
    return client.finalize_logged_model(model.model_id, "READY")


def _write(folder: Path, record: ModelRecord, weights: bytes, run_id: str, model_id: str) -> Path:
    """Write a model's folder as MLflow wants it; return the folder."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model  # pyright: ignore[reportAttributeAccessIssue]

    files = {"network": folder / "network.json", "weights": folder / "weights.safetensors"}
    facts = {**record.network, "weights_sha256": record.weights_sha256}
    files["network"].write_text(json.dumps(facts, indent=1, sort_keys=True))
    files["weights"].write_bytes(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for an example of images
        save_model(
            str(folder / "model"),
            python_model=str(Path(__file__).with_name("model_code.py")),
            artifacts={name: str(path) for name, path in files.items()},
            signature=_signature(record),
            pip_requirements=[f"{name}=={_public_version(name)}" for name in _NEEDED],
            mlflow_model=Model(run_id=run_id, model_id=model_id),
        )
    return folder / "model"


def _signature(record: ModelRecord) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images, real = (-1, *record.network["image_shape"]), np.dtype(np.float32)
    return ModelSignature(
        Schema([TensorSpec(real, images)]),
        Schema([TensorSpec(real, (-1, record.network["num_classes"]))]),
    )


def _log_metrics(client: MlflowClient, run_id: str, model_id: str, record: ModelRecord) -> None:
    from mlflow.entities import Metric

    metrics = [
        Metric(tidy_name(name), value, record.time_ms, record.step, model_id=model_id)
        for name, value in record.metrics.items()
    ]
    client.log_batch(run_id, metrics=metrics)


def _link(client: MlflowClient, run_id: str, model: LoggedModel, step: int) -> None:
    """Name a model among the outputs of its run."""
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    linked = {found.model_id for found in outputs.model_outputs} if outputs else set()
    if model.model_id not in linked:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])


def _register(
    client: MlflowClient, run_id: str, model: LoggedModel, name: str, description: str
) -> None:
    """Make a model a version of a registered one, and let the alias point to it."""
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # it is there already; if not, the next request says why
        client.create_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}'")
    # By its place: databases keep no id of the model, and a source "models:/ID" would be looked up
    # at the process's own tracking URI.
    place = model.artifact_location
    found = next((one for one in versions if one.source == place), None)
    if found is None:
        found = client.create_model_version(
            name, place, run_id, await_creation_for=0, model_id=model.model_id
        )
    _name_version(client, model, {"name": name, "version": str(found.version)})
    if (found.description or "") != description:
        client.update_model_version(name, str(found.version), description)
    whole = client.get_registered_model(name)
    if (whole.description or "") != description:
        client.update_registered_model(name, description)
    if str(whole.aliases.get(ALIAS)) != str(found.version):
        client.set_registered_model_alias(name, ALIAS, str(found.version))


def _name_version(client: MlflowClient, model: LoggedModel, version: dict[str, str]) -> None:
    """Have the model's page lead to its version, as MLflow's own functions do."""
    known: list[Any] = json.loads(model.tags.get(_VERSIONS_TAG, "[]"))
    if version not in known:
        client.set_logged_model_tags(model.model_id, {_VERSIONS_TAG: json.dumps([*known, version])})


def _model_name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)


def _public_version(package: str) -> str:
    """Return an installed version as an index has it, without the build ("+cu130")."""
    return version(package).partition("+")[0]
