"""`robustray.run`: what a notebook gets of a run of any kind, and what it is spared."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading

import mlflow
import pandas as pd
import pytest
import ray
import yaml

import robustray
from robustray.cli import main
from robustray.errors import ManifestError, UserError
from robustray.manifest import build_manifest
from robustray.store import LocalStore
from tests.helpers.evaluation_tasks import save_weights
from tests.helpers.interrupting_kind import COUNTING
from tests.helpers.study_runs import STUDY, fresh_database
from tests.helpers.user_packages import PLUGIN

SMALL = {
    **yaml.safe_load(STUDY),
    "grid": {"widths": {"settings": [[0.25, 0.25, 0.25], [0.25, 0.25, 0.5]]}},
}
CHANGES = ["recipe.epochs=2", "data.train_limit=160", "evaluation.attacks=[fgsm, pgd-10]"]

RESOURCES = {"gpus": 0, "cpus": 1}
ALIGNMENT = {
    "kind": "Alignment", "name": "tiny", "stage": "classifier",
    "data": {"name": "spheres", "first": 20}, "delta_x": {"source": "exact"},
    "training": {"method": "l_alpha", "batch_size": 20, "epochs": 1, "steps_per_epoch": 2},
    "resources": RESOURCES,
}  # fmt: skip
PLAIN = {"crop_padding": 0, "flip": False}
THIN = {"name": "cifar_resnet18", "width": 4, "depths": [1, 1, 1, 1]}
RECIPE = {
    "objective": "natural", "epochs": 1, "augmentation": PLAIN,
    "selection": {"start": 0, "attack": "clean"},
}  # fmt: skip
MIXING = {
    "kind": "Mixing", "name": "tiny",
    "data": {"name": "digits", "validation": 20, "train_limit": 84},
    "accurate": {"model": THIN, "recipe": RECIPE}, "robust": {"model": THIN, "recipe": RECIPE},
    "recipe": {
        "epochs": 1, "batch_size": 32, "segment": 1, "ahead": 1, "augmentation": PLAIN,
        "attack": {"iterations_df": 3, "n_targets": 1, "chunk": 16},
    },
    "judging": {
        "first": 8, "alphas": [0.5], "batch_size": 8, "suite": ["fgsm"],
        "adaptive": [{"name": "mix", "attack": "apgd-mixture", "options": {"n_iter": 3}}],
    },
    "resources": RESOURCES,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("ROBUSTRAY_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    shutil.copyfile(fresh_database(), tmp_path / "mine.db")
    return tmp_path


def kept(folder, **more):
    """Return where these tests keep things: nowhere that the environment says."""
    return {
        "store": folder / "kept",
        "tracking": f"sqlite:///{folder}/mine.db",
        "reports": folder / "pages",
        "say": lambda text: None,
        **more,
    }


@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(300)
def test_a_study_and_its_evaluation_come_back_as_tables(folder, monkeypatch, capfd):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    document, lines = dict(SMALL), []
    outcome = robustray.run(document, overrides=CHANGES, **kept(folder, say=lines.append))
    assert document == SMALL
    assert (outcome.kind, outcome.status, outcome.failed) == ("Sweep", "finished", {})
    trials = outcome.trials
    pd.testing.assert_frame_equal(trials, pd.read_csv(outcome.folder / "table.csv"))
    assert list(trials["name"]) == ["d1-1-1_w0.25-0.25-0.25", "d1-1-1_w0.25-0.25-0.5"]
    assert outcome.best.to_dict()["pgd-10"] == max(trials["pgd-10"])
    assert outcome.page == folder / "pages" / outcome.id / "report.html"
    assert repr(outcome) == f"<Sweep {outcome.id}: finished, 2 trials>"
    assert any("d1-1-1_w0.25" in line for line in lines)
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert folders == ["kept", "mlflow-artifacts", "pages"]  # nothing lies where nobody said
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mine.db")
    assert len(mlflow.search_runs(experiment_names=["small"])) == 3

    # The command line's own: the same id, and nothing is left to do.
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    os.environ["ROBUSTRAY_STORE"] = str(folder / "kept")
    try:
        words = [word for change in CHANGES for word in ("--set", change)]
        assert main(["status", "small.yaml", *words]) == 0
    finally:
        del os.environ["ROBUSTRAY_STORE"]
    again = robustray.run(folder / "small.yaml", overrides=CHANGES, **kept(folder))
    assert again.id == outcome.id
    pd.testing.assert_frame_equal(again.trials, trials)

    judged = robustray.run(
        {"kind": "Evaluation", "study": outcome.id, "suite": "fgsm", "resources": {"gpus": 0}},
        **kept(folder, store=LocalStore(folder / "kept")),
    )
    assert judged.id == outcome.id
    assert set(judged.trials) - set(trials) == {"fgsm_seed0"}
    html = judged._repr_html_()
    assert "d1-1-1_w0.25-0.25-0.5" in html
    assert str(judged.page) in html
    assert "weights_sha256" not in html
    monkeypatch.setenv("ROBUSTRAY_STORE", str(folder / "kept"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mine.db")
    scripts_find_the_same(outcome, words, capfd)
    assert ray.is_initialized()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def scripts_find_the_same(outcome, words, capfd):
    """Read with ``--json`` what the notebook has got: only documents go to standard output."""

    def ask(*arguments):
        capfd.readouterr()
        assert main([*arguments, "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    best = outcome.best["name"]
    plan = ask("plan", "small.yaml", *words)
    assert (plan["kind"], plan["id"], plan["name"]) == ("Sweep", outcome.id, "small")
    assert plan["manifest"]["recipe"]["epochs"] == 2
    assert sorted(trial["name"] for trial in plan["trials"]) == list(outcome.trials["name"])
    (job,) = ask("status")["jobs"]
    assert (job["id"], job["state"], job["begun"]) == (outcome.id, "finished", [])
    assert job["progress"] == {"unit": "epochs", "done": 4, "total": 4}
    assert job["trials"] == {
        "all": 2, "done": 2, "waiting": 0, "running": 0, "stopped": 0, "failed": 0
    }  # fmt: skip
    assert job["best"]["name"] == best
    report = ask("report", "--study", "small")
    assert report["rows"] == ask("report", "small.yaml", *words)["rows"]
    assert report["page"].endswith("report.html")
    assert report["trials"]["finished"] == 2
    exported = ask("weights", "export", "small", "--best", "best.safetensors")
    assert exported["trial"] == best
    assert exported["sha256"] == outcome.best["weights_sha256"]
    assert main(["weights", "export", "small", "--trial", best, "best.safetensors"]) == 2
    assert "exists" in capfd.readouterr().err
    _, *command = shlex.split(exported["evaluate"])
    judged = ask(*command, "--set", "resources.gpus=0", "--dry-run")
    assert judged["weights_sha256"] == exported["sha256"]
    assert judged["images"]["count"] == SMALL["data"]["test_limit"]
    ended = ask(
        "evaluate", "--study", "small", "--suite", "fgsm", "--set", "resources.gpus=0"
    )  # nothing is left to do
    assert (ended["status"], ended["failed"]) == ("finished", {})
    assert {row["name"] for row in ended["rows"]} == set(outcome.trials["name"])
    assert ended["best"] in ended["rows"]


@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(300)
def test_an_evaluation_of_one_network_is_one_row(folder):
    manifest = build_manifest(
        {
            "kind": "Evaluation", "name": "one", "data": {"name": "digits", "first": 20},
            "factory": "tests.helpers.evaluation_tasks:small_net",
            "weights": str(save_weights(folder / "weights")),
            "threat": {"norm": "linf", "eps": 0.1}, "suite": ["fgsm"],
            "resources": {"gpus": 0}, "audit": False,
        }
    )  # fmt: skip
    outcome = robustray.run(manifest, **kept(folder))
    assert outcome.status == "finished"
    assert len(outcome.trials) == 1
    best = outcome.best.to_dict()
    assert 0 <= best["robust_accuracy"] <= best["clean_accuracy"] <= 1
    assert (outcome.folder / "table.csv").exists()
    assert outcome.page == outcome.folder / "evaluation.html"


@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", [ALIGNMENT, MIXING], ids=lambda document: document["kind"])
def test_jobs_of_wings_are_one_row_too(folder, document):
    outcome = robustray.run(document, **kept(folder))
    assert (outcome.kind, outcome.status, outcome.failed) == (document["kind"], "finished", {})
    assert outcome.id.startswith("tiny-")
    assert outcome.folder == folder / "pages" / outcome.id
    assert any(outcome.folder.iterdir())
    assert list(outcome.trials["name"]) == ["tiny"]
    metrics = outcome.best.drop("name").astype(float)
    assert len(metrics) > 2
    assert "finished" in outcome._repr_html_()


@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(300)
def test_a_long_job_is_interrupted_and_continued(folder, capfd):
    (folder / "counts.py").write_text(COUNTING)
    before = signal.getsignal(signal.SIGINT)
    wanted = {
        "kind": "counts:KIND",
        "name": "x",
        "interrupts": os.getpid(),
        "resources": {"gpus": 0},
    }
    outcome = robustray.run(wanted, **kept(folder))
    assert (outcome.status, outcome.best, outcome.page) == ("interrupted", None, None)
    assert "stopping after this step" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    outcome = robustray.run(wanted, **kept(folder))
    assert outcome.status == "finished"
    assert outcome.best.to_dict()["steps"] == 3
    assert outcome.page.read_text() == "<p>three</p>"


@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(300)
def test_a_thread_may_run_too(folder):
    (folder / "counts_too.py").write_text(COUNTING)
    wanted, found = {"kind": "counts_too:KIND", "name": "x", "resources": {"gpus": 0}}, []
    thread = threading.Thread(target=lambda: found.append(robustray.run(wanted, **kept(folder))))
    thread.start()
    thread.join()
    assert found[0].status == "finished"


def test_a_kind_that_tells_nothing_has_an_outcome(folder, monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)
    lines = []
    outcome = robustray.run({"kind": "toyplugin.kinds:tally", "name": "x"}, say=lines.append)
    assert lines == ["counts to 3"]
    assert outcome.status == "finished"
    assert outcome.id.startswith("x-")
    assert outcome.trials.empty
    assert (outcome.best, outcome.folder, outcome.page) == (None, None, None)


@pytest.mark.parametrize(
    ("manifest", "error", "words"),
    [
        ({"kind": "Sweep", "name": "x", "modle": {}}, ManifestError, "modle"),
        ("nowhere.yaml", ManifestError, "nowhere"),
        ("manifests/nothing.yaml", UserError, "neither a file here nor"),
        ({**SMALL, "grid": {"widths": {"stages": 3, "each_stage": [*range(1, 31)]}}}, ManifestError,
         "27,000 trials are more than 10,000"),
    ],
)  # fmt: skip
def test_errors_are_raised(folder, manifest, error, words):
    with pytest.raises(error, match=words):
        robustray.run(manifest, **kept(folder))
    assert not (folder / "kept").exists()


ALONE = """
import signal
import ray
import robustray

before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
wanted = {"kind": "counts:KIND", "name": "x", "resources": {"gpus": 0}}
for name in "ab":  # a Ray each
    assert robustray.run(wanted | {"name": name}, store="kept").status == "finished"
    assert not ray.is_initialized()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
"""


@pytest.mark.slow
def test_a_ray_that_was_started_is_ended_and_handlers_are_put_back(folder):
    (folder / "counts.py").write_text(COUNTING)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mine.db",
    }
    command = [sys.executable, "-c", ALONE]
    subprocess.run(command, cwd=folder, env=environment, check=True)


def test_every_name_of_the_top_face_is_there():
    assert set(robustray.__all__) <= set(dir(robustray))
    assert all(hasattr(robustray, name) for name in robustray.__all__)
