"""Evaluations of one network side by side."""

import json

import pytest
from mlflow import MlflowClient

from robustray.errors import UserError
from robustray.evaluation.comparing import publish_judgements
from robustray.reports.judgements import Judgement, table_csv, table_text
from robustray.reports.pages.judgements import judgements_page
from robustray.store import LocalStore
from tests.evaluation.test_run import evaluate, monkeypatch_module, tracking

__all__ = ["monkeypatch_module", "tracking"]

pytestmark = pytest.mark.timeout(600)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_two_suites_stand_in_one_table_with_curves_and_findings(tmp_path, tracking):
    curve = {"eps": [0.06, 0.12]}
    weak, _ = evaluate(tmp_path, name="weak", suite="pgd-20", audit=True, curve=curve)
    black, _ = evaluate(
        tmp_path,
        name="black-box",
        suite=[{"name": "square", "options": {"n_queries": 20}}],
        audit=True,
        curve=curve,
    )
    store, said = LocalStore(tmp_path / "store"), []
    folder = publish_judgements(
        ["weak", "black-box"], store, tmp_path / "reports", tracking, said.append
    )
    lines = (folder / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["evaluation", "weak", "black-box"]
    assert float(lines[1].split(",")[6]) == weak.result["robust"]["accuracy"]
    assert float(lines[2].split(",")[6]) == black.result["robust"]["accuracy"]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "Zero grad." in said[0]
    client = MlflowClient(tracking)
    (run,) = client.search_runs([client.get_experiment_by_name("judgements").experiment_id])
    names = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert names == {"table.csv", "accuracies.png", "curves.png", "judgements.html"}
    with pytest.raises(UserError, match="'none' names 0 finished evaluations"):
        publish_judgements(["none"], store, tmp_path, tracking, said.append)
    again, _ = evaluate(tmp_path, name="weak", suite="fgsm")
    folder = publish_judgements([weak.id, again.id], store, tmp_path, tracking, said.append)
    lines = (folder / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [weak.id, again.id]
    key = f"evaluations/{again.id}/result.json"
    half = {**again.result, "partial": True, "robust": None, "missing": ["fgsm: images 0 to 16"]}
    store.delete(key)
    store.put(key, json.dumps(half).encode())
    with pytest.raises(UserError, match=r"not complete.*\(fgsm: images 0 to 16\)"):
        publish_judgements([weak.id, again.id], store, tmp_path, tracking, said.append)
    other, _ = evaluate(tmp_path, name="other", threat={"eps": 0.2})
    with pytest.raises(UserError, match="different threat"):
        publish_judgements([weak.id, other.id], store, tmp_path, tracking, said.append)


def judgement(**fields):
    finding = {"check": "nan_gradient", "severity": "error", "measured": 1.0, "message": "<blind>"}
    given = {
        "label": "without", "suite": "autoattack-standard", "surrogate": "its own", "batches": "",
        "images": 10, "clean": 0.9, "robust": 0.5, "interval": (0.2, 0.8), "findings": [finding],
    }  # fmt: skip
    return Judgement(**given | fields)


def test_findings_stand_beside_the_number_and_are_escaped():
    rows = [judgement(), judgement(label="with", findings=[])]
    text = table_text(rows)
    assert "nan_gradient: error: <blind>" in text
    assert "100" in text.splitlines()[1]
    html = judgements_page("<title>", rows, [])
    assert "<blind>" not in html
    assert "&lt;blind&gt;" in html
    assert table_csv(rows).decode().splitlines()[1].endswith("1.0,nan_gradient")
    assert text.splitlines()[2].rstrip().endswith("not audited")
