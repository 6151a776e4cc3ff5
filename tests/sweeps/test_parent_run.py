"""The run of a study: curves of what has ended, its description, and the columns of its table."""

from dataclasses import replace

from robustray.manifest import build_manifest
from robustray.sweeps.grid import Study
from robustray.sweeps.parent_run import Conclusion, EndedTrial, study_run
from robustray.tracking import ModelRecord

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
    EndedTrial(3000, 0.25, 2.0, "d" * 64),
    EndedTrial(1000, 0.5, 1.0, "d" * 64),
    EndedTrial(2000, None, 0.5, None),  # stopped early
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
    assert columns.params == ("depths", "widths", "macs", "parameters")
