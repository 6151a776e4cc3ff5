"""``robustray report --paper``: from results in a store to tables, figures and MLflow."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from robustray.cli import main
from robustray.manifest import ModelConfig, Recipe, load_manifest
from robustray.scaling.job import _names, _training
from robustray.store import canonical_json, open_store
from robustray.sweeps import Study
from robustray.sweeps.mending import save_study
from tests.helpers.study_runs import REPOSITORY

SETTINGS = [
    {"depths": [14, 14, 7], "widths": [5, 7, 3]},
    {"name": "rrn_a1"},
    {"depths": [5, 5, 2], "widths": [10, 10, 10]},
]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTRAY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def result(name: str, cw40: float) -> bytes:
    """A trial's result, as a worker commits it."""
    return canonical_json({
        "trial": name, "model": {}, "seed": 0, "data": {"label": "cifar10", "digest": "ab"},
        "epochs": 100, "selected_epoch": 76, "validation_accuracy": 0.5, "weights_sha256": "cd",
        "metrics": {"clean": 0.84, "fgsm": 0.6, "pgd-20": 0.57, "cw-40": cw40},
    })  # fmt: skip


def make_study(place: Path, finished: dict[str, float], *changes: str) -> Study:
    file = REPOSITORY / "manifests/sweeps/ratio_5g_20g.yaml"
    document = yaml.safe_load(file.read_text())
    document["grid"]["settings"] = SETTINGS
    document["model"] = {}
    (place / "study.yaml").write_text(yaml.safe_dump(document))
    study = Study.from_manifest(load_manifest(place / "study.yaml", changes))  # type: ignore[arg-type]
    store = open_store()
    save_study(store, study)
    for name, cw40 in finished.items():
        prefix = study.trial_prefix(name)
        store.put(f"{prefix}/result.json", result(name, cw40))
        store.put(f"{prefix}/finished.json", canonical_json({"finished_ms": 1}))
    return study


def cells(place: Path, table: str) -> dict[str, dict[str, str]]:
    path = place / f"runs/reports/robust_resnets/{table}.csv"
    return {row["label"]: row for row in csv.DictReader(path.open())}


def test_results_fill_their_cells_and_no_other(place, capsys):
    study = make_study(place, {"d14-14-7_w5-7-3": 0.55, "rrn_a1": 0.56})
    assert main(["report", "--paper"]) == 0
    assert "measured     6 of 228" in capsys.readouterr().out
    table2 = cells(place, "table2")
    compound = table2["Compound 5G"]
    assert compound["parameters_published"] == "17700000.0"
    assert compound["parameters_corrected"] == "18707930.0"
    assert compound["parameters_measured"] == "18707930.0"
    assert (compound["cw-40_published"], compound["cw-40_measured"]) == ("0.5478", "0.55")
    assert study.id in compound["sources"]
    assert table2["Depth 5G"]["cw-40_measured"] == "missing"  # planned, not finished
    a1 = cells(place, "cifar10_trades")["RobustResNet-A1"]
    assert (a1["pgd-20_published"], a1["pgd-20_corrected"]) == ("0.5847", "0.5874")
    assert a1["cw-40_measured"] == "0.56"
    assert a1["autoattack_measured"] == "missing"
    assert {row["cw-40_measured"] for row in cells(place, "cifar10_sat").values()} == {"missing"}


def test_everything_is_in_the_folder_the_store_and_mlflow(place):
    make_study(place, {"rrn_a1": 0.56})
    assert main(["report", "--paper", "ratio_5g"]) == 0
    folder = place / "runs/reports/robust_resnets"
    names = {path.name for path in folder.iterdir()}
    figures = {"compare_scale.png", "compound_scale.png", "scale_depth.png", "scale_width.png"}
    assert names >= figures | {"paper.html", "table1.csv", "table3.parquet", "correlations.csv"}
    for name in names:
        kept = place / "store/reports/robust_resnets" / name
        assert kept.read_bytes() == (folder / name).read_bytes()
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("robust_resnets")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id, "report")}
    assert artifacts == {f"report/{name}" for name in names}
    page = (folder / "paper.html").read_text()
    assert "MISSING" in page
    assert "depth 0.561 published, MISSING measured" in page


def test_proxies_and_other_threats_do_not_count(place):
    make_study(place, {"rrn_a1": 0.56}, "recipe.threat.eps=4/255")
    assert main(["report", "--paper"]) == 0
    assert cells(place, "cifar10_trades")["RobustResNet-A1"]["cw-40_measured"] == "missing"


def test_an_empty_store_gives_tables_without_measurements(place):
    assert main(["report", "--paper"]) == 0
    assert cells(place, "table1")["WRN-28-10, robust blocks"]["cw-40_measured"] == "missing"


def test_paper_and_study_exclude_each_other(place, capsys):
    assert main(["report", "--paper", "--study", "x"]) == 2
    assert "--paper takes the ids of studies" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ({"depths": (5, 5, 2), "widths": (10, 10, 10)}, ("basic 5-5-2 10-10-10",)),
        ({"depths": (1,), "widths": (1,), "block": "robust", "scales": 8}, ("robust 1 1",)),
        ({"depths": (1,), "widths": (1,), "block": "robust", "scales": 4}, ()),
        ({"depths": (1,), "widths": (1,), "activations": "SiLU"}, ()),
        ({"name": "rrn_a1"}, ("rrn_a1", "robust 14-14-7 5-7-3")),
    ],
)
def test_a_network_is_only_what_it_is_named_without_further_options(model, names):
    assert _names(ModelConfig(**model)) == names


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ({}, "trades"),
        ({"objective": "natural"}, "natural"),
        ({"awp": {}}, "trades with awp"),
        ({"mixture": {"extra": 0.7}}, "rst"),
        ({"threat": {"norm": "l2", "eps": 0.5}, "inner": {"step_size": 0.1}}, "trades with l2 0.5"),
    ],
)
def test_only_the_published_recipes_fill_the_tables(recipe, name):
    assert _training(Recipe.model_validate(recipe)) == name
