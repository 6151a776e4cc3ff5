"""Bringing MLflow to the state that a record describes, once, however often it is asked."""

# MLflow's types are incomplete.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import tempfile
import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from robustray.tracking import limits
from robustray.tracking.faults import (
    RecordRejectedError,
    is_missing,
    plain_errors,
    resolve_uri,
    sqlite_file,
)
from robustray.tracking.limits import (
    DIGEST_TAG,
    KEY_TAG,
    OLD_MARK,
    Changes,
    Shown,
    artifact_tag,
    changes,
    wanted_tags,
)
from robustray.tracking.mlflow_client import (
    ask_database,
    find_experiment,
    import_mlflow,
    make_client,
)
from robustray.tracking.mlflow_models import log_models
from robustray.tracking.records import DataUse, RunRecord, bytes_digest
from robustray.tracking.ui import show_columns
from robustray.words import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MAX_TAGS_AT_CREATION = 100


class MlflowSink:
    """One MLflow server or database; for one thread at a time.

    A run is found by its tag ``mlflow.robustray.key``, or by the name that earlier versions gave
    it. Only one process at a time may own a key.

    Parameters
    ----------
    uri : str
        ``http(s)://HOST:PORT``, ``sqlite:///FILE`` or another database that MLflow knows. An SQLite
        file and the folders above it are made when first needed; artifacts of its experiments
        then lie beside it in ``mlflow-artifacts``.

    Raises
    ------
    UserError
        If the URI can't be used.
    """

    def __init__(self, uri: str) -> None:
        self.uri = resolve_uri(uri)
        self._client_lock = threading.Lock()
        self._made: MlflowClient | None = None
        self._experiments: dict[str, str] = {}
        self._shown: dict[tuple[str, str], Shown] = {}
        self._doubtful: set[tuple[str, str]] = set()
        self._has_old: dict[str, bool] = {}

    name = "MLflow"

    @property
    def title(self) -> str:
        """Its name, and where it is."""
        return f"MLflow ({redact(self.uri)})"

    def prepare(self) -> None:
        """Import MLflow."""
        import_mlflow()

    def apply(self, record: RunRecord) -> bool:
        """Bring MLflow to the record's state; a repetition sends nothing.

        Returns
        -------
        bool
            False if all is there but the nesting, because the parent's run does not exist yet.

        Raises
        ------
        TrackingUnavailableError
            If a later try may succeed. What was sent stays, and is not doubled by the next try.
        RecordRejectedError
            If MLflow refuses the record. A parameter that stands there with another value is
            reported so too, after everything else of the record was sent.
        """
        with plain_errors():
            try:
                return self._apply(record)
            except Exception as error:
                if not is_missing(error):
                    raise
            self._forget(record.experiment)  # somebody replaced the database under us
            return self._apply(record)

    def probe(self) -> None:
        """Return if MLflow answers.

        Raises
        ------
        TrackingUnavailableError, RecordRejectedError
            If it does not, or does not let us in.
        """
        with plain_errors():
            file = sqlite_file(self.uri)
            if file is None:
                self._client().search_experiments(max_results=1)
            else:
                ask_database(file)

    def _apply(self, record: RunRecord) -> bool:
        place = (record.experiment, record.key)
        shown = self._lookup(*place)
        digest = record.digest()
        if shown and shown.tags.get(DIGEST_TAG) == digest:
            shown.know_points(record.metrics)
            self._end(record, shown)
            return True
        parent = self._lookup(record.experiment, record.parent_key) if record.parent_key else None
        linked = bool(parent) or record.parent_key is None
        parent_id = parent.run_id if parent else None
        shown = shown or self._create(record, parent_id)
        news = changes(record, shown, parent_id)
        whole = linked and not news.conflicts
        if news or record.terminal or not shown.terminal:
            self._send(record, shown, news, {DIGEST_TAG: digest} if whole else {})
        self._end(record, shown)
        if news.conflicts:
            names = ", ".join(news.conflicts[:5])
            raise RecordRejectedError(f"MLflow holds other values of the parameters {names}")
        return linked

    def _lookup(self, experiment: str, key: str) -> Shown | None:
        """Return what is known of a run, from memory or else from MLflow."""
        known = self._shown.get((experiment, key))
        if known and (experiment, key) not in self._doubtful:
            return known
        found = self._find(self._experiment(experiment), key, known.run_id if known else "")
        if found:
            self._shown[experiment, key] = found
        return found

    def _find(self, experiment_id: str, key: str, known_id: str) -> Shown | None:
        """Return the run of a key.

        Further ones are removed: they come from a request to create one that the server carried out
        after we had given up on it.
        """
        runs = self._search(experiment_id, f"tags.`{KEY_TAG}` = '{key}'")
        if not runs and self._holds_old(experiment_id):
            runs = self._search(experiment_id, f"tags.`{OLD_MARK}key` = '{key}'")
        for run in runs:
            self._rename_tags(run)
        runs.sort(key=lambda run: (run.run_id != known_id, -len(run.tags), run.run_id))
        for surplus in runs[1:]:
            self._client().delete_run(surplus.run_id)
        return runs[0] if runs else None

    def _search(self, experiment_id: str, query: str) -> list[Shown]:
        return [Shown.of(run) for run in self._client().search_runs([experiment_id], query)]

    def _holds_old(self, experiment_id: str) -> bool:
        """Whether an earlier version has written to the experiment."""
        if experiment_id not in self._has_old:
            found = self._client().search_runs(
                [experiment_id], f"tags.`{OLD_MARK}key` != ''", max_results=1
            )
            self._has_old[experiment_id] = bool(found)
        return self._has_old[experiment_id]

    def _rename_tags(self, shown: Shown) -> None:
        """Give the tags of an earlier version the names that they have now."""
        old = shown.old_tags()
        renamed = {new: shown.tags[name] for name, new in old.items() if new not in shown.tags}
        for batch in limits.batches({}, [], renamed):
            self._log(shown.run_id, batch)
        for name in old:
            self._client().delete_tag(shown.run_id, name)
            del shown.tags[name]
        shown.tags |= renamed

    def _create(self, record: RunRecord, parent_id: str | None) -> Shown:
        place = (record.experiment, record.key)
        wanted = ((name, value) for name, value in wanted_tags(record, parent_id).items() if value)
        tags = dict(islice(wanted, _MAX_TAGS_AT_CREATION))
        try:
            run = self._client().create_run(
                self._experiment(record.experiment),
                start_time=record.start_ms,
                tags=tags,
                run_name=record.name,
            )
        except Exception:
            self._doubtful.add(place)
            raise
        self._shown[place] = Shown(run.info.run_id, tags=tags)
        return self._shown[place]

    def _send(self, record: RunRecord, shown: Shown, news: Changes, digest: dict[str, str]) -> None:
        if shown.terminal and not record.terminal:
            self._client().update_run(shown.run_id, status="RUNNING")
            shown.status, shown.end_ms = "RUNNING", None
        self._upload(shown.run_id, news.artifacts)
        digests = {artifact_tag(p): bytes_digest(data) for p, data in news.artifacts.items()}
        # The record's digest vouches for everything, so it comes last.
        points = [limits.tidy_point(point) for point in news.points]
        last = digest if digest.items() - shown.tags.items() else {}
        tags = news.tags | digests | (last if not record.models else {})
        self._log_data(shown, news.data)
        if record.columns is not None:
            show_columns(self._client(), self._experiment(record.experiment), record.columns)
        for batch in limits.batches(news.params, points, tags):
            self._log(shown.run_id, batch)
        shown.params |= news.params
        shown.tags |= tags
        shown.know_points(record.metrics)
        if record.models:
            self._send_models(record, shown)
            for batch in limits.batches({}, [], last):
                self._log(shown.run_id, batch)
            shown.tags |= last

    def _send_models(self, record: RunRecord, shown: Shown) -> None:
        try:
            place = self._experiment(record.experiment)
            log_models(self._client(), place, shown.run_id, record.models)
        except Exception:  # of what can't be logged, everything else is there: the run has ended
            self._end(record, shown)
            raise

    def _log(self, run_id: str, batch: limits.LogBatch) -> None:
        from mlflow.entities import Metric, Param, RunTag

        # First, as the digest that vouches for all of it may be in this batch.
        for name in (name for name, value in batch.tags if not value):  # one that stands there
            self._client().delete_tag(run_id, name)
        self._client().log_batch(
            run_id,
            metrics=[Metric(p.name, p.value, p.timestamp_ms, p.step) for p in batch.metrics],
            params=[Param(name, value) for name, value in batch.params],
            tags=[RunTag(name, value) for name, value in batch.tags if value],
            synchronous=True,
        )

    def _log_data(self, shown: Shown, data: tuple[DataUse, ...]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if not data:
            return
        inputs = [
            DatasetInput(
                Dataset(used.name, used.digest, "robustray", used.source, profile=used.profile),
                [InputTag("mlflow.data.context", used.context)],
            )
            for used in data
        ]
        self._client().log_inputs(shown.run_id, inputs)
        shown.data |= {used[:2] for used in data}

    def _upload(self, run_id: str, artifacts: dict[str, bytes]) -> None:
        if not artifacts:
            return
        with tempfile.TemporaryDirectory(prefix="robustray-artifacts-") as folder:
            for path, content in artifacts.items():
                file = Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self._client().log_artifacts(run_id, folder)

    def _end(self, record: RunRecord, shown: Shown) -> None:
        if not record.terminal:
            return
        if not shown.is_at(record):
            self._client().set_terminated(shown.run_id, record.status, record.end_ms)
            shown.status, shown.end_ms = record.status, record.end_ms or shown.end_ms
        place = (record.experiment, record.key)
        if place in self._doubtful:
            self._lookup(*place)  # a second run of a late request goes now
            self._doubtful.discard(place)

    def _experiment(self, name: str) -> str:
        """Return the id of the experiment, which is made if need be."""
        if name not in self._experiments:
            self._experiments[name] = find_experiment(self._client(), self.uri, name)
        return self._experiments[name]

    def _forget(self, experiment: str) -> None:
        self._experiments.pop(experiment, None)
        self._shown = {p: shown for p, shown in self._shown.items() if p[0] != experiment}

    def _client(self) -> MlflowClient:
        with self._client_lock:
            if self._made is None:
                self._made = make_client(self.uri)
            return self._made
