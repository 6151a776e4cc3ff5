"""The run of a study: curves of what has ended, its description, and the columns of its table."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest

from robustray.manifest import build_manifest, load_manifest
from robustray.runtime.lease import lease
from robustray.runtime.session import Session
from robustray.store import LocalStore
from robustray.sweeps.grid import Study
from robustray.sweeps.parent_run import Conclusion, EndedTrial, study_run
from robustray.sweeps.plan import make_plan
from robustray.sweeps.study import _Driver
from robustray.tracking import ModelRecord, Uploaders

STUDY = Study.from_manifest(
    build_manifest(
        {
            "kind": "Sweep",
            "name": "small",
            "description": "Which width is best?",
            "grid": {"widths": {"settings": [[1, 1, 1], [2, 1, 1], [1, 2, 1]]}},
            "data": {"name": "digits", "validation": 60},
            "evaluation": {"attacks": ["fgsm", "pgd-20"]},
        }
    )
)
ENDED = [
    EndedTrial(3000, 700, 0.25, 2.0, "d" * 64),
    EndedTrial(1000, 600, 0.5, 1.0, "d" * 64),
    EndedTrial(2000, 800, None, 0.5, None),  # stopped early
]


def curve(record, name):
    return [
        (point.step, point.value, point.timestamp_ms)
        for point in record.metrics
        if point.name == name
    ]


def test_each_end_of_a_trial_is_a_point_whatever_order_they_are_read_in():
    found = study_run(STUDY, "RUNNING", 500, ENDED)
    assert found.metrics == study_run(STUDY, "RUNNING", 500, ENDED[::-1]).metrics
    assert curve(found, "best_pgd-20") == [(1, 0.5, 1000), (2, 0.5, 2000), (3, 0.5, 3000)]
    assert curve(found, "median_pgd-20") == [(1, 0.5, 1000), (2, 0.5, 2000), (3, 0.375, 3000)]
    assert curve(found, "trials_done") == [(1, 1, 1000), (2, 2, 2000), (3, 3, 3000)]
    assert curve(found, "trials_total")[-1] == (3, 3, 3000)
    assert [value for _, value, _ in curve(found, "device_hours")] == [1.0, 1.5, 3.5]


def test_what_is_known_grows_with_the_study():
    begun, grown = study_run(STUDY, "RUNNING", 500, []), study_run(STUDY, "RUNNING", 500, ENDED)
    assert (begun.metrics, begun.data) == ((), ())
    assert [(used.name, used.context) for used in grown.data] == [
        ("digits train", "training"),
        ("digits held-out", "validation"),
        ("digits test", "test"),
    ]
    assert {used.digest for used in grown.data} == {"d" * 16}
    assert begun.params == grown.params
    assert "None" not in begun.params.values()


def test_the_description_has_the_manifests_words_and_names_the_model():
    begun = study_run(STUDY, "RUNNING", 500, [], Conclusion())
    assert begun.tags["mlflow.note.content"] == "Which width is best?"
    assert "mlflow.note.content" not in study_run(STUDY, "KILLED", 500, []).tags
    model = ModelRecord(
        name="w1", weights_sha256="0" * 64, network={}, step=1, metrics={}, time_ms=1,
        registered=STUDY.id, fetch=bytes,
    )  # fmt: skip
    last = Conclusion({"report/report.html": b"page"}, None, model)
    record = study_run(STUDY, "FINISHED", 500, ENDED, last)
    assert f'load_model("models:/{STUDY.id}@best")' in record.tags["mlflow.note.content"]
    assert record.models == (model,)
    assert record.digest() != replace(record, models=()).digest()


def test_the_table_of_runs_shows_accuracies_and_what_varies_best_first():
    columns = study_run(STUDY, "RUNNING", 500, []).columns
    assert columns.sorted_by == "test_pgd-20"
    assert columns.metrics == ("test_pgd-20", "test_fgsm", "test_clean")
    assert columns.params == ("widths", "macs")  # each has the same depths


class Shown:
    """A sink that keeps every state of a run that it is brought."""

    name = title = "list"

    def __init__(self):
        self.records = []

    def prepare(self):
        pass

    def probe(self):
        pass

    def apply(self, record):
        self.records.append(record)
        return True

    def states_of(self, key):
        return [record for record in self.records if record.key == key]


@pytest.fixture
def place(undisturbed, tmp_path):
    """A copy of the finished small study, and its trials in the order in which they ended."""
    study = Study.from_manifest(load_manifest(undisturbed.manifest))
    shutil.copytree(undisturbed.folder / "store", tmp_path / "store")
    store = LocalStore(tmp_path / "store")
    trials = tmp_path / "store" / study.prefix / "trials"
    ends = {path.parent.name: path.stat().st_mtime for path in trials.glob("*/result.json")}
    return study, store, trials, sorted(ends, key=lambda name: ends[name])


def opened(study, store, sink):
    held = lease(store, study.prefix, lambda line: None)
    uploaders = Uploaders([sink], log=print, allowed=lambda: True)
    return held, uploaders


def test_no_point_of_a_study_is_made_before_those_of_earlier_ends_are_known(place, tmp_path):
    study, store, trials, in_order = place
    shown = Shown()
    held, uploaders = opened(study, store, shown)
    with held as first, uploaders:
        session = Session(first, study.manifest.resources, uploaders, f"sqlite:///{tmp_path}/m.db")
        trials.rename(tmp_path / "later")
        driver = _Driver(study, make_plan(study), session)
        for name in in_order:
            driver.started(name)
        (tmp_path / "later").rename(trials)
        for name in in_order[::-1]:  # as a driver hears of them when several end at once
            driver.finished(name)
            assert uploaders.drain() == {}
    states = shown.states_of(study.prefix)
    assert len(states) == len(in_order)
    told = {point for state in states for point in state.metrics}
    assert set(Counter((point.name, point.step) for point in told).values()) == {1}


def test_a_study_that_was_done_is_shown_as_it_was_and_never_as_running(place, tmp_path):
    study, store, _, _ = place
    shown = Shown()
    for _ in range(2):
        held, uploaders = opened(study, store, shown)
        with held as first, uploaders:
            session = Session(
                first, study.manifest.resources, uploaders, f"sqlite:///{tmp_path}/m.db"
            )
            driver = _Driver(study, make_plan(study), session)
            driver.run("", study.manifest.resources)
            assert driver.conclude(tmp_path / "reports").untracked == {}
    states = shown.states_of(study.prefix)
    assert [(state.status, state.start_ms, state.end_ms) for state in states] == 2 * [
        ("FINISHED", states[0].start_ms, states[0].metrics[-1].timestamp_ms)
    ]
    assert states[0].start_ms < states[0].metrics[0].timestamp_ms
    assert states[0].digest() == states[1].digest()
    assert len(shown.records) == 2 * (1 + len(study.trials))
