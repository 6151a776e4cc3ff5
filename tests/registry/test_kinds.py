"""Kinds of jobs that users bring, from manifest to report."""

from __future__ import annotations

import importlib
import pickle
import shutil

import pytest

from robustray.cli import main
from robustray.errors import ManifestError
from robustray.manifest import build_manifest
from robustray.registry import KINDS, UnknownNameError
from tests.helpers.study_runs import fresh_database
from tests.helpers.user_packages import ask, put_package
from tests.registry.test_extending import FILES

REGISTERED = (
    FILES["pi.py"]
    + """

from robustray.kinds import register_kind

register_kind("Pi", KIND)
"""
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ROBUSTRAY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("_entries", "_functions"):  # what is registered here goes with the test
        monkeypatch.setattr(KINDS, name, dict(getattr(KINDS, name)))
    shutil.copyfile(fresh_database(), tmp_path / "mlflow.db")
    return tmp_path


@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("module", "kind"), [("pi", "pi:KIND"), ("registered_pi", "Pi")])
def test_a_users_kind_runs_as_ours_do(folder, capsys, module, kind):
    (folder / f"{module}.py").write_text(FILES["pi.py"] if module == "pi" else REGISTERED)
    (folder / "pi.yaml").write_text(FILES["pi.yaml"].replace("pi:KIND", kind))
    if kind == "Pi":
        importlib.import_module(module)

    def ask_for(*words: str, code: int = 0) -> str:
        assert main([words[0], "--manifest", "pi.yaml", *words[1:]]) == code
        said = capsys.readouterr()
        return said.out + said.err

    assert "is not finished" in ask_for("report", code=2)
    planned = ask_for("run", "--dry-run")
    for words in ("rounds: 3", "points: 1000", "3 rounds of 1000 points", "0 of 3 steps"):
        assert words in planned
    assert not (folder / "store/pi").exists()
    assert "pi is about 3.1" in ask_for("run")
    assert ask_for("status").endswith(": finished\n")
    (written,) = folder.glob("runs/reports/*/pi.txt")
    written.unlink()
    assert "pi is about 3.1" in ask_for("report")
    assert float(written.read_text()) == pytest.approx(3.14, abs=0.1)
    assert "rounds: must be greater than or equal to 1" in ask_for(
        "run", "--set", "rounds=0", code=2
    )
    assert main(["status"]) == 0
    overview = capsys.readouterr().out
    assert (f"pi {written.parent.name}: finished" in overview) == (kind == "Pi")


def test_edited_code_is_another_job(folder):
    from robustray.manifest import pin_code, study_id

    (folder / "pi_edited.py").write_text(FILES["pi.py"])
    manifest = build_manifest({"kind": "pi_edited:KIND", "name": "x"})
    before = study_id(pin_code(manifest))
    (folder / "pi_edited.py").write_text(FILES["pi.py"] + "\n# another line\n")
    assert study_id(pin_code(manifest)) != before


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sweep", r"m\.yaml: kind: must be Alignment, .*did you mean 'Sweep'"),
        ("tests.nowhere:KIND", r"m\.yaml: kind: tests\.nowhere can't be imported"),
        ("tests.registry.test_kinds:folder", "is no JobKind but"),
    ],
)
def test_what_is_no_kind_is_one_message(kind, words):
    with pytest.raises(ManifestError, match=words):
        build_manifest({"kind": kind, "name": "x"}, (), "m.yaml")


PLAN = """
import json
from robustray.cli import main
from robustray.registry import KINDS

open("tally.yaml", "w").write("{kind: tally, name: mine}")
code = main(["plan", "--manifest", "tally.yaml"])
print(json.dumps([code, "tally" in KINDS.names()]))
"""


def test_an_installed_package_brings_a_kind(tmp_path):
    place = put_package(tmp_path / "site-packages", metadata=True)
    assert ask(PLAN, tmp_path, place) == [0, True]


GONE = """
import json
from contextlib import redirect_stderr
from io import StringIO
from robustray.cli import main

said = StringIO()
with redirect_stderr(said):
    codes = [main(["status", *words]) for words in ([], ["--study", "toy"])]
print(json.dumps([codes, said.getvalue()]))
"""

KEPT = """
import json
from robustray.manifest import build_manifest
from robustray.store import open_store
from robustray.sweeps import Study
from robustray.sweeps.mending import save_study

study = Study.from_manifest(build_manifest({
    "kind": "Sweep", "name": "toy", "model": {"name": "toy"}, "data": {"name": "stripes"}}))
save_study(open_store(), study)
print(json.dumps(study.id))
"""


def test_a_study_names_the_entry_points_that_are_not_installed_any_more(tmp_path, monkeypatch):
    place = put_package(tmp_path / "site-packages", metadata=True)
    monkeypatch.setenv("ROBUSTRAY_STORE", str(tmp_path / "store"))
    name = ask(KEPT, tmp_path, place)
    codes, said = ask(GONE, tmp_path)
    assert codes == [2, 2]
    missing = "toy of the group robustray.models, stripes of the group robustray.datasets"
    for words in (name, missing, "pip install", "on every node"):
        assert said.count(words) == 2
    assert "damaged" not in said


def test_a_worker_can_send_that_it_lacks_a_package():
    with pytest.raises(UnknownNameError) as caught:
        KINDS.check("Lacking")
    sent = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert str(sent) == str(caught.value)
    assert (sent.group, sent.name) == ("robustray.kinds", "Lacking")
