"""Evaluating a study: every selected checkpoint meets another suite, which joins the report."""

import json

import pytest
from mlflow import MlflowClient

from robustray.store import seal
from tests.helpers.evaluation_runs import robustray
from tests.helpers.study_runs import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """A finished study of four small networks."""
    place = Place(tmp_path_factory.mktemp("study"))
    assert place.run() == 0, place.log
    return place


def evaluate(place, *arguments):
    rest = ("--set", "resources.gpus=0", "--set", "shard_size=25", *arguments)
    return robustray(place.folder, place.environment, "evaluate", "--study", "small", *rest)


def test_a_suite_becomes_a_column_of_the_table_and_a_metric_of_the_runs(place):
    before = place.table().decode().splitlines()
    code, said = evaluate(place, "--suite", "pgd-20")
    assert code == 0, said
    assert "column       pgd-20_seed0: there for 4 of 4 finished networks; best d" in said
    table = place.table().decode().splitlines()
    assert table[0] == before[0].replace("pgd-20,", "pgd-20,pgd-20_seed0,")
    own, column = (table[0].split(",").index(name) for name in ("pgd-20", "pgd-20_seed0"))
    cells = [line.split(",") for line in table[1:]]
    accuracies = {row[0]: float(row[column]) for row in cells}
    assert len(accuracies) == 4
    assert all(abs(float(row[own]) - accuracies[row[0]]) < 0.1 for row in cells), "found again"
    client = MlflowClient(place.environment["MLFLOW_TRACKING_URI"])
    (experiment,) = client.search_experiments(filter_string="name = 'small'")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 5, "no run was added"
    shown = {
        run.info.run_name: run.data.metrics.get("test_pgd-20_seed0")
        for run in runs
        if "trial" in run.data.tags
    }
    assert shown == accuracies
    for name in accuracies:
        (record,) = place.study.glob(f"trials/{name}/evaluations/pgd-20_seed0/record.json")
        result = json.loads(record.read_text())["result"]
        assert result["robust"]["accuracy"] == accuracies[name]
        assert result["data"]["count"] == 60
        assert result["audit"]

    code, said = evaluate(place, "--suite", "pgd-20")
    assert code == 0, said
    assert "0 of 4 finished trials to attack" in said
    assert place.table().decode().splitlines() == table


def test_the_columns_of_an_independent_suite_join_the_table(place):
    arguments = ("--suite", "fgsm,pgd-10", "--suite-mode", "independent", "--set", "audit=false")
    code, said = evaluate(place, *arguments)
    assert code == 0, said
    header, *lines = [line.split(",") for line in place.table().decode().splitlines()]
    at = header.index("custom_independent:fgsm")
    names = ["custom_independent:fgsm", "custom_independent:pgd-10", "custom_independent"]
    assert header[at : at + 3] == names
    for line in lines:
        fgsm, pgd, worst = map(float, line[at : at + 3])
        assert worst <= min(fgsm, pgd)
        (path,) = place.study.glob(f"trials/{line[0]}/evaluations/custom_independent/result.json")
        assert [c["accuracy"] for c in json.loads(path.read_text())["columns"]] == [fgsm, pgd]


def test_checkpoints_that_were_not_kept_are_told(place):
    (weights, *_) = place.study.glob("trials/d1-1-1_w0.5-0.5-0.5/checkpoints/*/weights-*")
    records = place.study.glob("trials/d1-1-1_w0.5-0.5-0.5/checkpoints/*/record.json")
    selected = json.loads((place.study / "trials/d1-1-1_w0.5-0.5-0.5/result.json").read_text())
    for record in records:
        content = json.loads(record.read_text())
        if content["step"] == selected["selected_epoch"]:
            del content["sha256"]
            record.write_bytes(seal({**content, "state": "pruned"}))
    code, said = evaluate(place, "--suite", "fgsm", "--set", "seed=3", "--set", "audit=false")
    assert code == 1, said
    assert "d1-1-1_w0.5-0.5-0.5: its selected checkpoint was not kept" in said
    assert "PARTIAL" in (place.folder / "runs/reports").rglob("report.html").__next__().read_text()
    assert weights.exists()
