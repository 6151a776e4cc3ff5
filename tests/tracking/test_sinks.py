"""TensorBoard's event files and wandb's offline folders, read back; and how sinks are chosen."""

# The classes of protocol buffers are made when they are imported.
# pyright: reportAttributeAccessIssue=false

import struct
import threading
from dataclasses import replace
from importlib import util

import pytest

from robustray.errors import UserError
from robustray.manifest import Tracking
from robustray.runtime.commands import say_tracking
from robustray.tracking import MlflowSink, Uploaders, check_sinks, make_sinks
from tests.helpers.mlflow_records import points, record, runs_of

KEY = "studies/s-1/trials/a"


def read_events(folder):
    """Return the scalars of a run as TensorBoard reads them, and its settings."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    scalars = {
        tag: [(event.step, event.value, event.wall_time) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }
    content = found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    return scalars, {name: value.string_value for name, value in settings.items()}


def read_wandb(folder):
    """Return the records of an offline run: a log of LevelDB's format, of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("run-*.wandb")
    data, at, parts, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _crc, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


@pytest.fixture
def board(tmp_path):
    (sink,) = make_sinks("sqlite:///m.db", Tracking(tensorboard=str(tmp_path / "tb")))[1:]
    return sink


@pytest.fixture
def offline(tmp_path):
    (sink,) = make_sinks("sqlite:///m.db", Tracking(wandb=str(tmp_path / "w")))[1:]
    return sink


def test_event_files_grow_by_what_they_lack(board, tmp_path):
    wanted = record(KEY, steps=2)
    for _ in range(2):
        board.apply(wanted)
    again = make_sinks("sqlite:///m.db", Tracking(tensorboard=str(board.folder)))[1]
    again.apply(replace(wanted, metrics=points(3), status="FINISHED", end_ms=1))
    scalars, settings = read_events(board.folder / KEY)
    assert settings == wanted.params
    assert [step for step, _, _ in scalars["loss"]] == [0, 1, 2]
    assert scalars["robust/accuracy"][2] == (2, 2.25, pytest.approx(1_700_000_000.02))


def test_an_event_that_was_cut_off_is_written_again(board):
    board.apply(record(KEY, steps=2))
    (file,) = (board.folder / KEY).iterdir()
    with file.open("r+b") as torn:
        torn.truncate(file.stat().st_size - 5)
    again = make_sinks("sqlite:///m.db", Tracking(tensorboard=str(board.folder)))[1]
    again.apply(record(KEY, steps=3))
    scalars, _ = read_events(board.folder / KEY)
    assert {tag: [step for step, _, _ in found] for tag, found in scalars.items()} == {
        "loss": [0, 1, 2],
        "robust/accuracy": [0, 1, 2],
    }


def test_an_offline_run_holds_everything_and_is_replaced_by_a_newer_one(offline, capfd):
    running = record(KEY, parent_key="studies/s-1")
    offline.apply(running)
    assert list(offline.folder.glob("*")) == []  # not before its end
    capfd.readouterr()
    ended = replace(running, status="FINISHED", end_ms=1)
    offline.apply(ended)
    assert capfd.readouterr() == ("", "")
    (first,) = offline.folder.iterdir()
    offline.apply(ended)
    assert [first] == list(offline.folder.iterdir())
    offline.apply(replace(ended, start_ms=1, artifacts={"report.html": b"drawn again"}))
    assert [first] == list(offline.folder.iterdir())  # it holds none of that
    offline.apply(replace(ended, metrics=points(3)))
    (folder,) = offline.folder.iterdir()
    assert folder.name.rpartition("-")[2] == first.name.rpartition("-")[2]  # the run's id
    found = read_wandb(folder)
    (run,) = (entry.run for entry in found if entry.HasField("run"))
    assert (run.project, run.display_name, run.run_group) == ("experiment", ended.name, "s-1")
    assert {item.key: item.value_json for item in run.config.update}["lr"] == '"0.1"'
    rows = [
        {(item.key or item.nested_key[0]): item.value_json for item in entry.history.item}
        for entry in found
        if entry.HasField("history")
    ]
    assert [row["loss"] for row in rows] == ["0.5", "1.5", "2.5"]
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert float(rows[1]["_timestamp"]) == pytest.approx(1_700_000_000.01)


def test_one_submission_reaches_every_sink(sqlite_uri, experiment, tmp_path):
    sinks = make_sinks(sqlite_uri, Tracking(tensorboard=str(tmp_path / "tb")))
    lines = []
    with Uploaders(sinks, log=lines.append, allowed=lambda: True) as uploaders:
        assert uploaders.check() == {}
        uploaders.submit(KEY, lambda: record(KEY, experiment=experiment))
        assert uploaders.drain(60) == {}
    assert lines == []
    assert len(runs_of(sqlite_uri, experiment)) == 1
    assert len(read_events(tmp_path / "tb" / KEY)[0]["loss"]) == 2


def test_each_sink_is_waited_for_and_counted_by_itself(monkeypatch, tmp_path):
    monkeypatch.setattr("robustray.tracking.sinks.PATIENCE_WHEN_AWAY_S", 0.1)
    sinks = make_sinks("http://127.0.0.1:9", Tracking(tensorboard=str(tmp_path / "tb")))
    apply, asked = sinks[1].apply, threading.Event()
    monkeypatch.setattr(sinks[1], "apply", lambda record: asked.wait(60) and apply(record))
    with Uploaders(sinks, log=lambda line: None, allowed=lambda: True) as uploaders:
        assert list(uploaders.check()) == ["MLflow"]
        for key in (KEY, f"{KEY}b"):
            uploaders.submit(key, lambda key=key: record(key))
        threading.Timer(1.0, asked.set).start()  # long after MLflow is given up
        untracked = uploaders.drain()
    assert {name: sorted(keys) for name, keys in untracked.items()} == {"MLflow": [KEY, f"{KEY}b"]}
    lines = []
    say_tracking(untracked | {"wandb": [KEY]}, "http://127.0.0.1:9", "small", lines.append)
    assert lines[0].startswith("MLflow       2 runs are not there yet; nothing is lost")
    assert lines[1].startswith("wandb        1 run is not there yet; nothing is lost")


def test_a_folder_that_can_not_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    sinks = make_sinks("sqlite:///m.db", Tracking(tensorboard=str(tmp_path / "file/tb")))[1:]
    with Uploaders(sinks, log=lambda line: None, allowed=lambda: True) as uploaders:
        assert list(uploaders.check()) == ["TensorBoard"]


def test_a_missing_package_is_told_before_anything_starts(monkeypatch):
    known = util.find_spec
    monkeypatch.setattr(
        "robustray.tracking.sinks.find_spec",
        lambda name: None if name == "wandb" else known(name),
    )
    check_sinks("sqlite:///m.db", Tracking(tensorboard="tb"))
    with pytest.raises(UserError, match=r"tracking.wandb: .* pip install 'robustray\[wandb\]'"):
        check_sinks("sqlite:///m.db", Tracking(wandb="w"))


def test_mlflow_is_always_among_the_sinks():
    (sink,) = make_sinks("sqlite:///m.db", Tracking())
    assert isinstance(sink, MlflowSink)
