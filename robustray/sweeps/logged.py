"""What a study gives to MLflow beside numbers: its data sets, and checkpoints as models."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from robustray.data import describe
from robustray.store import CheckpointRecord, ObjectStore
from robustray.sweeps.checkpointing import selected_name
from robustray.sweeps.grid import Study
from robustray.sweeps.records import TrialState
from robustray.tracking import DataUse, ModelRecord

_DIGITS = 16  # of a digest: MLflow takes no more than 36, and shows all of them


def list_data(study: Study, digest: str) -> tuple[DataUse, ...]:
    """Return the data sets of a study; ``digest`` is the one that stands in its results."""
    config = study.manifest.data
    facts = describe(config)
    source = json.dumps(config.model_dump(mode="json", exclude_none=True))
    shape = {
        "label": facts.label,
        "image_shape": facts.image_shape,
        "num_classes": facts.num_classes,
    }
    parts = [
        ("train", "training", facts.train),
        ("held-out", "validation", facts.validation),
        ("test", "test", facts.test),
    ]
    return tuple(
        DataUse(
            f"{config.name} {part}",
            digest[:_DIGITS],
            context,
            source,
            json.dumps({"num_rows": count, **shape}),
        )
        for part, context, count in parts
    )


def list_models(study: Study, state: TrialState, store: ObjectStore) -> tuple[ModelRecord, ...]:
    """Return the checkpoints of a finished trial whose bytes are kept, the selected one first."""
    if state.result is None:
        return ()
    selected = state.result["selected_epoch"]
    kept = [record for record in state.checkpoints if record.state == "kept"]
    kept.sort(key=lambda record: (record.step != selected, record.step))
    return tuple(_model(study, state, store, record) for record in kept)


def selected_model(study: Study, state: TrialState, store: ObjectStore) -> ModelRecord | None:
    """Return the selected checkpoint of a finished trial, if its bytes are kept."""
    if state.result is None:
        return None
    models = list_models(study, state, store)
    return next((one for one in models if one.step == state.result["selected_epoch"]), None)


def _model(
    study: Study, state: TrialState, store: ObjectStore, record: CheckpointRecord
) -> ModelRecord:
    assert state.result is not None
    facts = describe(study.manifest.data)
    file = record.files[selected_name(record)]
    selected = record.step == state.result["selected_epoch"]
    return ModelRecord(
        name=state.trial.name if selected else f"{state.trial.name}-epoch-{record.step}",
        weights_sha256=file["sha256"],
        network={
            "model": state.trial.model.model_dump(mode="json", exclude_none=True),
            "num_classes": facts.num_classes,
            "class_names": facts.class_names,
            "image_shape": facts.image_shape,
        },
        step=record.step,
        metrics=_test_metrics(state) if selected else _held_out_metrics(state, record.step),
        time_ms=state.ended_ms or 0,
        fetch=partial(store.get, file["key"]),
    )


def _test_metrics(state: TrialState) -> dict[str, float]:
    result: dict[str, Any] = state.result or {}
    return {f"test_{name}": value for name, value in result["metrics"].items()}


def _held_out_metrics(state: TrialState, epoch: int) -> dict[str, float]:
    epochs = (event for event in state.events() if event["event"] == "epoch")
    found = next((event["metrics"] for event in epochs if event["epoch"] == epoch), {})
    return {name: value for name, value in found.items() if name.startswith("validation_")}
