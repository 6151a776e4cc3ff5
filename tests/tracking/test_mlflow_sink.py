import json
import math
import threading
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from robustray.tracking import (
    Columns,
    DataUse,
    MetricPoint,
    MlflowSink,
    RecordRejectedError,
    TrackingUnavailableError,
    runs_page,
)
from robustray.tracking.records import bytes_digest
from tests.helpers.mlflow_records import artifacts, everything, history, points, record, runs_of

END = 1_700_000_100_000


@pytest.fixture
def requests_made(mlflow_server):
    """Return a function that counts the API requests since its last call, from the server's log."""
    seen = 0

    def count():
        nonlocal seen
        lines = mlflow_server.log.read_text().splitlines()
        total = sum('"POST /api/' in line or '"GET /api/' in line for line in lines)
        seen, news = total, total - seen
        return news

    count()
    return count


def test_a_replay_from_another_process_adds_nothing(uri, experiment):
    study = record("study", experiment=experiment, status="FINISHED", end_ms=END)
    trial = record(
        experiment=experiment,
        parent_key="study",
        status="FINISHED",
        end_ms=END,
        artifacts={"report/table.csv": b"a,b\n", "notes.txt": b"x"},
        metrics=(
            *points(3),
            MetricPoint("loss", math.nan, 3, END),
            MetricPoint("loss", math.inf, 4, END),
        ),
    )
    first = MlflowSink(uri)
    assert first.apply(study)
    assert first.apply(trial)
    before = everything(uri, experiment)
    for sink in (first, MlflowSink(uri), MlflowSink(uri)):
        assert sink.apply(study)
        assert sink.apply(trial)
    assert str(everything(uri, experiment)) == str(before)  # as text, NaN equals NaN
    assert len(before) == 2
    found = runs_of(uri, experiment)[1]
    assert (found.info.status, found.info.start_time, found.info.end_time) == (
        "FINISHED", trial.start_ms, END,
    )  # fmt: skip
    assert found.info.run_name == "name of study/trial"
    assert found.data.params == trial.params
    assert trial.tags.items() <= found.data.tags.items()
    assert artifacts(uri, found) == trial.artifacts
    losses = history(uri, found, "loss")
    assert [step for step, _, _ in losses] == [0, 1, 2, 3, 4]
    assert math.isnan(losses[3][1])
    assert losses[4][1] > 1e308


def test_a_finished_run_costs_a_new_process_one_search(mlflow_server, experiment, requests_made):
    done = record(experiment=experiment, status="FINISHED", end_ms=END, artifacts={"a": b"1"})
    sink = MlflowSink(mlflow_server.endpoint)
    sink.apply(record("other", experiment=experiment))
    requests_made()
    sink.apply(done)
    assert requests_made() == 5  # search, create, artifact place, batch, end
    sink.apply(done)
    assert requests_made() == 0
    later = MlflowSink(mlflow_server.endpoint)
    later.apply(done)
    assert requests_made() == 2  # experiment's id, search
    later.apply(done)
    assert requests_made() == 0


def test_records_grow_and_only_the_news_is_sent(uri, experiment):
    sink = MlflowSink(uri)
    for steps in (1, 2, 5):
        sink.apply(record(experiment=experiment, steps=steps, artifacts={"log": b"x" * steps}))
    resumed = MlflowSink(uri)  # another process goes on, knowing all that is in the store
    resumed.apply(
        record(
            experiment=experiment,
            steps=7,
            params={"lr": "0.1", "beta": "6", "eps": "8/255"},
            tags={"host": "b"},
            artifacts={"log": b"x" * 7, "more/log": b"y"},
        )
    )
    (run,) = runs_of(uri, experiment)
    assert [step for step, _, _ in history(uri, run, "loss")] == list(range(7))
    assert run.data.params == {"lr": "0.1", "beta": "6", "eps": "8/255"}
    assert (run.data.tags["host"], run.data.tags["mlflow.note.content"]) == ("b", "a note")
    assert artifacts(uri, run) == {"log": b"x" * 7, "more/log": b"y"}
    assert run.info.status == "RUNNING"


def test_steps_of_an_abandoned_attempt_may_be_replaced(sqlite_uri, experiment):
    sink = MlflowSink(sqlite_uri)
    sink.apply(record(experiment=experiment, steps=3))
    sink.apply(record(experiment=experiment, metrics=(*points(2), MetricPoint("loss", 9.0, 2, 1))))
    (run,) = runs_of(sqlite_uri, experiment)
    assert {(2, 9.0, 1), (1, 1.5, 1_700_000_000_010)} <= set(history(sqlite_uri, run, "loss"))


def test_much_and_odd_content_arrives_whole(uri, experiment):
    long = record(
        experiment=experiment,
        params={f"p{i}": "é" * 6500 for i in range(120)} | {"top1@8/255": "", "empty": ""},
        tags={f"t{i}": "v" * 9000 for i in range(130)},
        metrics=points(1100),
        status="KILLED",
        end_ms=END,
    )
    MlflowSink(uri).apply(long)
    (run,) = runs_of(uri, experiment)
    assert len(run.data.params) == 122
    assert {len(v) for v in run.data.params.values()} == {0, 6000}
    assert sum(name.startswith("t") for name in run.data.tags) == 130
    assert len(history(uri, run, "loss")) == 1100
    assert run.info.status == "KILLED"
    before = everything(uri, experiment)
    MlflowSink(uri).apply(replace(long, status="FINISHED"))
    assert everything(uri, experiment)[0][3:] == before[0][3:]


def test_a_failed_run_is_opened_again_by_news_only(sqlite_uri, experiment):
    failed = record(experiment=experiment, status="FAILED", end_ms=END)
    MlflowSink(sqlite_uri).apply(failed)
    status = lambda: runs_of(sqlite_uri, experiment)[0].info.status  # noqa: E731
    MlflowSink(sqlite_uri).apply(replace(failed, status="RUNNING", end_ms=None))
    assert status() == "FAILED"
    resumed = MlflowSink(sqlite_uri)
    resumed.apply(record(experiment=experiment, steps=3))
    assert status() == "RUNNING"
    resumed.apply(record(experiment=experiment, steps=3, status="FINISHED", end_ms=END + 5))
    assert status() == "FINISHED"
    assert runs_of(sqlite_uri, experiment)[0].info.end_time == END + 5


def test_children_are_found_under_their_parent(uri, experiment):
    sink = MlflowSink(uri)
    sink.apply(record("study", experiment=experiment))
    for number in range(3):
        sink.apply(record(f"study/{number}", experiment=experiment, parent_key="study"))
    parent = next(
        r for r in runs_of(uri, experiment) if r.data.tags["mlflow.robustray.key"] == "study"
    )
    children = MlflowClient(uri).search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    assert {c.data.tags["mlflow.robustray.key"] for c in children} == {
        "study/0",
        "study/1",
        "study/2",
    }


def test_a_child_before_its_parent_is_linked_when_it_is_applied_again(sqlite_uri, experiment):
    child = record(experiment=experiment, parent_key="study", status="FINISHED", end_ms=END)
    assert not MlflowSink(sqlite_uri).apply(child)
    MlflowSink(sqlite_uri).apply(record("study", experiment=experiment))
    assert MlflowSink(sqlite_uri).apply(child)
    study, trial = runs_of(sqlite_uri, experiment)
    assert trial.data.tags["mlflow.parentRunId"] == study.info.run_id


def test_sinks_may_make_the_same_experiment_at_the_same_time(uri, experiment):
    together = threading.Barrier(6)
    errors = []

    def work(number):
        sink = MlflowSink(uri)
        together.wait()
        try:
            sink.apply(record(f"k{number}", experiment=experiment))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(runs_of(uri, experiment)) == 6


def test_a_run_that_was_made_twice_becomes_one(sqlite_uri, experiment):
    sink = MlflowSink(sqlite_uri)
    sink.apply(record(experiment=experiment))
    (kept,) = runs_of(sqlite_uri, experiment)
    client = MlflowClient(sqlite_uri)
    client.create_run(kept.info.experiment_id, tags={"mlflow.robustray.key": "study/trial"})
    MlflowSink(sqlite_uri).apply(record(experiment=experiment, steps=4))
    (run,) = runs_of(sqlite_uri, experiment)
    assert run.info.run_id == kept.info.run_id
    assert len(history(sqlite_uri, run, "loss")) == 4


def test_a_run_of_an_earlier_version_is_found_and_its_tags_are_renamed(uri, experiment):
    client = MlflowClient(uri)
    number = client.create_experiment(experiment)
    ended = record(experiment=experiment, status="FINISHED", end_ms=END, artifacts={"a": b"1"})
    digest = {"robustray.record_digest": "0" * 32, "robustray.artifact.a": bytes_digest(b"1")}
    old = client.create_run(number, tags={"robustray.key": ended.key, "host": "a", **digest})
    client.log_metric(old.info.run_id, "loss", 0.5, timestamp=1_700_000_000_000, step=0)
    for _ in range(2):
        MlflowSink(uri).apply(ended)
    (run,) = runs_of(uri, experiment)
    assert run.info.run_id == old.info.run_id
    assert not [name for name in run.data.tags if name.startswith("robustray.")]
    assert history(uri, run, "loss") == [(0, 0.5, 1_700_000_000_000), (1, 1.5, 1_700_000_000_010)]
    assert artifacts(uri, run) == {}  # the digest says that it was sent


def test_pages_show_only_tags_that_are_for_people(sqlite_uri, experiment):
    tags = {"host": "a", "failure": ""}
    wanted = record(experiment=experiment, tags=tags, artifacts={"a": b"1"})
    MlflowSink(sqlite_uri).apply(wanted)
    MlflowSink(sqlite_uri).apply(replace(wanted, tags={**tags, "failure": "of memory"}))
    MlflowSink(sqlite_uri).apply(wanted)
    (run,) = runs_of(sqlite_uri, experiment)
    shown = {n: v for n, v in run.data.tags.items() if not n.startswith("mlflow.")}
    assert shown == {"host": "a"}


def test_the_table_of_runs_opens_on_the_columns_of_a_study(uri, experiment):
    columns = Columns("test_cw-40", ("test_cw-40", "test_clean"), ("widths",))
    for _ in range(2):
        MlflowSink(uri).apply(record(experiment=experiment, columns=columns))
    found = MlflowClient(uri).get_experiment_by_name(experiment)
    view = json.loads(found.tags["mlflow.sharedViewState.robustray"])
    assert view["orderByKey"] == "metrics.`test_cw-40`"
    assert view["selectedColumns"][:3] == [
        "metrics.`test_cw-40`", "metrics.`test_clean`", "params.`widths`",
    ]  # fmt: skip
    assert runs_page(uri, experiment).endswith(
        f"/#/experiments/{found.experiment_id}/runs?workflowType=machine_learning"
        "&viewStateShareKey=robustray"
    )


def test_data_sets_are_named_once(uri, experiment):
    parts = [("digits train", "training"), ("digits test", "test")]
    data = tuple(
        DataUse(n, "f" * 32, use, '{"name": "digits"}', '{"num_rows": 9}') for n, use in parts
    )
    for used in (data[:1], data, data):
        MlflowSink(uri).apply(record(experiment=experiment, data=used))
    (run,) = runs_of(uri, experiment)
    found = [
        (entry.dataset.name, entry.dataset.digest, entry.tags[0].value)
        for entry in run.inputs.dataset_inputs
    ]
    assert sorted(found) == sorted((n, "f" * 32, use) for n, use in parts)


def test_a_parameter_that_would_change_is_told_and_all_else_arrives(uri, experiment):
    MlflowSink(uri).apply(record(experiment=experiment))
    changed = record(
        experiment=experiment, params={"lr": "0.2", "new": "1"}, status="FINISHED", end_ms=END
    )
    for _ in range(2):  # and is told again, as long as it is so
        with pytest.raises(RecordRejectedError, match="parameters lr"):
            MlflowSink(uri).apply(changed)
    (run,) = runs_of(uri, experiment)
    assert run.data.params == {"lr": "0.1", "beta": "6", "new": "1"}
    assert run.info.status == "FINISHED"


def test_a_deleted_experiment_is_told(sqlite_uri, experiment):
    MlflowSink(sqlite_uri).apply(record(experiment=experiment))
    client = MlflowClient(sqlite_uri)
    client.delete_experiment(client.get_experiment_by_name(experiment).experiment_id)
    with pytest.raises(RecordRejectedError, match="deleted"):
        MlflowSink(sqlite_uri).apply(record(experiment=experiment))


def test_files_lie_beside_the_database(sqlite_uri, experiment, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    MlflowSink(sqlite_uri).apply(record(experiment=experiment, artifacts={"a/b": b"1"}))
    folder = Path(sqlite_uri.removeprefix("sqlite:///")).parent
    (run,) = runs_of(sqlite_uri, experiment)
    assert (folder / "mlflow-artifacts" / run.info.run_id / "artifacts/a/b").read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == []


def test_an_unchanged_artifact_is_not_sent_again(sqlite_uri, experiment):
    MlflowSink(sqlite_uri).apply(record(experiment=experiment, artifacts={"a": b"1", "b": b"1"}))
    folder = Path(sqlite_uri.removeprefix("sqlite:///")).parent / "mlflow-artifacts"
    (run,) = runs_of(sqlite_uri, experiment)
    files = [folder / run.info.run_id / "artifacts" / name for name in ("a", "b")]
    before = [file.stat().st_mtime_ns for file in files]
    MlflowSink(sqlite_uri).apply(record(experiment=experiment, artifacts={"a": b"1", "b": b"2"}))
    after = [file.stat().st_mtime_ns for file in files]
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_no_server_is_told_without_its_password():
    sink = MlflowSink("http://me:s3cret@127.0.0.1:1/mlflow")
    for action in (sink.probe, lambda: sink.apply(record())):
        with pytest.raises(TrackingUnavailableError) as caught:
            action()
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "m.db").write_text("something else" * 1000)
    with pytest.raises(TrackingUnavailableError, match="not a database"):
        MlflowSink(f"sqlite:///{tmp_path}/m.db").probe()


def test_nothing_is_printed(uri, experiment, capfd):
    capfd.readouterr()
    MlflowSink(uri).apply(record(experiment=experiment, status="FINISHED", end_ms=END))
    assert capfd.readouterr() == ("", "")
