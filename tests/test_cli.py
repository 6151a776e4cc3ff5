"""The command line: plans, wrong input, exit codes; everything that needs no running sweep."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from robustray.cli import main
from robustray.cli.main import make_parser
from robustray.cli.watching import watch
from robustray.manifest import load_manifest
from robustray.store import LocalStore
from tests.helpers.study_runs import REPOSITORY, enter_folder

SPHERES = str(REPOSITORY / "manifests/alignment/spheres_pgd.yaml")
ALIGNMENT = str(REPOSITORY / "manifests/alignment/spheres_generator.yaml")
MIXING = str(REPOSITORY / "manifests/smoothing/digits.yaml")
WIDTH = str(REPOSITORY / "manifests/sweeps/width_512.yaml")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return enter_folder(tmp_path, monkeypatch)


def test_a_plan_lists_a_dozen_trials_and_all_of_them_if_asked(folder, capsys):
    more = ["--set", "grid={widths: {stages: 3, each_stage: [0.25, 0.5, 1]}}"]
    assert main(["plan", "small.yaml", *more]) == 0
    short = capsys.readouterr().out.splitlines()
    assert main(["plan", "small.yaml", *more, "--all"]) == 0
    whole = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("d1-1-1_w") for line in short) == 12
    assert "... 15 more (--all lists them) ..." in short
    assert sum(line.startswith("d1-1-1_w") for line in whole) == 27
    assert main(["run", "small.yaml", *more, "--dry-run"]) == 0
    assert short[-12:] == capsys.readouterr().out.splitlines()[-12:]
    assert main(["plan", "small.yaml", *more, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["trials"]) == 27
    assert document["missing_files"] == []
    assert document["device_hours"] == {}


@pytest.mark.parametrize("kind", ["sweep", "training", "mixing", "alignment"])
def test_a_manifest_to_begin_with_is_planned_as_it_is_and_never_overwritten(folder, capsys, kind):
    assert main(["init", f"my-{kind}", "--kind", kind]) == 0
    text = (folder / f"my-{kind}.yaml").read_text()
    assert text.startswith("#")
    assert f"robustray plan my-{kind}.yaml" in text
    capsys.readouterr()
    assert main(["plan", "--manifest", f"my-{kind}.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["name"] == plan["manifest"]["name"] == f"my-{kind}"
    assert plan["id"].startswith(f"my-{kind}-")
    assert main(["init", f"my-{kind}"]) == 2
    assert "exists" in capsys.readouterr().err
    assert (folder / f"my-{kind}.yaml").read_text() == text


def test_an_evaluation_to_begin_with_names_the_newest_study_or_a_network(folder, capsys):
    assert main(["init", "before", "--kind", "evaluation"]) == 0
    assert load_manifest("before.yaml", ()).model_dump()["model"]["name"] == "rrn_a1"
    store = LocalStore(folder / "runs/store")
    store.put("manifests/small-0123456789.yaml", b"")
    assert main(["init", "after.yaml", "--kind", "evaluation"]) == 0
    assert load_manifest("after.yaml", ()).model_dump()["study"] == "small-0123456789"
    assert main(["init", "No Name"]) == 2
    assert "small letters" in capsys.readouterr().err


def test_scripts_get_an_error_beside_and_nothing_else(folder, capsys):
    wrong = (
        ["plan", "small.yaml", "--set", "recipe.epoch=3"],
        ["status", "--study", "nothing"],
        ["report", "--study", "nothing"],
        ["report", "--paper"],
        ["plan", "--target-gmacs", "5"],
        ["weights", "export", "nothing", "--best", "a.safetensors"],
        ["evaluate", "--study", "nothing"],
    )
    for arguments in wrong:
        assert main([*arguments, "--json"]) == 2, arguments
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("error: ") == 1
    assert main(["status", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["jobs"] == []
    assert "no study" in captured.err


def test_who_watches_is_told_what_changes_until_all_is_finished(folder, capsys, monkeypatch):
    looks = [(0, 2, "unfinished"), (0, 2, "unfinished"), (1, 2, "unfinished"), (2, 2, "finished")]

    def look(output):
        done, total, state = looks.pop(0)
        output.say(f"{done} of {total}")
        progress = {"unit": "epochs", "done": done, "total": total}
        return 0, {"jobs": [{"state": state, "progress": progress}]}

    assert watch(look, 0.001) == 0
    assert capsys.readouterr().out.split("\n") == ["0 of 2", "1 of 2", "2 of 2", ""]
    for wrong in (["--watch", "0"], ["--watch", "--json"]):
        assert main(["status", *wrong]) == 2
        assert "--watch" in capsys.readouterr().err


def test_every_command_explains_itself_within_a_terminal(capsys, monkeypatch):
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        for name, parser in commands_of(make_parser()):
            said = parser.format_help()
            assert max(map(len, said.splitlines())) <= width, name
            for action in parser._actions:
                assert action.help or action.nargs == "A...", f"{name}: {action.dest}"


def commands_of(parser, name="robustray"):
    """Yield every parser of the command line with its name."""
    yield name, parser
    for action in parser._actions:
        for word, command in (action.choices or {}).items() if action.nargs == "A..." else ():
            yield from commands_of(command, f"{name} {word}")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("robustray run manifests/qui", {"manifests/quickstart.yaml"}),
        ("robustray run sm", {"small.yaml"}),
        ("robustray sta", {"status"}),
        ("robustray init x --kind tr", {"training"}),
        ("robustray status --study quick", {"quickstart-0123456789"}),
        ("robustray plan --meas", {"--measure"}),
    ],
)
def test_a_shell_is_told_what_fits_without_torch(folder, typed, expected):
    LocalStore(folder / "runs/store").put("manifests/quickstart-0123456789.yaml", b"")
    asked = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(folder / "out"),
        "COMP_LINE": typed, "COMP_POINT": str(len(typed)), "_ARGCOMPLETE_IFS": "\n",
    }  # fmt: skip
    command = [sys.executable, "-X", "importtime", "-m", "robustray.cli"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **asked}, capture_output=True,
        text=True, cwd=folder,
    )  # fmt: skip
    found = {word.strip() for word in (folder / "out").read_text().split("\n")}
    assert found == expected
    assert not re.search(r"\| +(torch|ray|pandas)$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script(capsys, shell):
    assert main(["completion", shell]) == 0
    assert "robustray" in capsys.readouterr().out


@pytest.mark.slow
def test_dry_run_of_the_width_study_starts_nothing(folder, capsys):
    assert main(["run", "--manifest", WIDTH, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "trials       512" in out
    assert "146,266,074" in out or "145,815,514" in out  # the largest member, w = 20-20-20
    assert "20,924,151,552" in out
    assert "not measured yet" in out
    assert "cifar10: 48,976 images to train on, 1,024 held out" in out
    assert not (folder / "runs").exists()


def test_a_target_is_planned_without_a_manifest(folder, capsys):
    assert main(["plan", "--target-gmacs", "5"]) == 0
    out = capsys.readouterr().out
    chosen = next(line for line in out.splitlines() if line.startswith("RobustScaling"))
    assert chosen.split()[1:5] == ["14-14-7", "5-7-3", "0.700", "18,707,930"]
    assert "19,222,738" in out  # the same with robust blocks is RobustResNet-A1
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target-gmacs", "0.001"], "too few: the smallest network"),
        (["--target-gmacs", "-1"], "a number above 0"),
        (["--target-gmacs", "inf"], "at most 1,000"),
        (["--target-gmacs", "nan"], "at most 1,000"),
        (["--target-gmacs", "5", "--manifest", "small.yaml"], "takes no manifest"),
    ],
)
def test_a_wrong_target_is_one_message(folder, capsys, arguments, words):
    assert main(["plan", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--manifest", "small.yaml", "--set", "model.block=bottleneck"],
        ["run", "--manifest", "small.yaml", "--set", "data.validation=5000"],
        ["run", "--manifest", ALIGNMENT, "--set", "data.first=200"],
        ["run", "--manifest", MIXING, "--set", "robust={model: {name: wrn_a1}, weights: a.pt}"],
        ["run", "--manifest", MIXING, "--set", "data.name=mnist"],
        ["evaluate", "--model", "rrn_a1", "--weights", "missing.pt"],
        ["evaluate", "--study", "missing"],
    ],
)
def test_a_dry_run_that_fails_prints_its_error_and_nothing_else(folder, capsys, arguments):
    assert main([*arguments, "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["accurate.model.name=Preact_Resnet"], "accurate.model.name: unknown model"),
        (["robust={model: {name: wrn_a1}, weights: a.pt}"], "robust.weights"),
        (["judging.suite=apgd"], "judging.suite: "),
        (["judging.adaptive=Smoothing-Adaptive"], "did you mean 'smoothing-adaptive'"),
        (["recipe={epochs: 100000, batch_size: 2, segment: 1}"], "segments would be committed"),
    ],
)
def test_a_mixing_job_names_its_own_fields(folder, capsys, overrides, words):
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main(["plan", "--manifest", MIXING, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_dry_run_of_a_mixing_job_tells_what_it_takes(folder, capsys):
    assert main(["run", "--manifest", MIXING, "--dry-run"]) == 0
    out = capsys.readouterr().out
    for words in ("kind: Mixing", "77,562 parameters", "passes", "MB of checkpoints"):
        assert words in out


def test_a_dry_run_of_an_alignment_job_looks_at_what_it_refers_to(folder, capsys):
    assert main(["run", "--manifest", SPHERES, "--dry-run"]) == 0
    out = capsys.readouterr().out
    for words in ("kind: Alignment", "classifier 1,507,001", "200 judged", "passes", "bytes"):
        assert words in out
    for override, words in {
        "weights=nowhere": "weights: no finished job has the name 'nowhere'",
        "weights=nowhere.safetensors": "weights.uri: there is no file nowhere.safetensors",
        "data.name=mnist35": "ROBUSTRAY_DATA",
        "data={name: digits, first: 100000}": "data.first is 100000",
    }.items():
        changes = ["stage=evaluation", "training=null", "weights=nowhere", "delta_x=null", override]
        changes[3] = "delta_x={source: none}"
        arguments = [part for change in changes for part in ("--set", change)]
        assert main(["run", "--manifest", SPHERES, "--dry-run", *arguments]) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.out == ""


def test_a_study_of_very_many_trials_is_asked_for_by_name(folder, capsys):
    many = ["--manifest", WIDTH, "--set", "grid.widths.stages=5"]
    for command in (["plan"], ["run"], ["run", "--yes"], ["run", "--dry-run"]):
        assert main([*command, *many]) == 2
        captured = capsys.readouterr()
        assert "32,768 trials are more than 10,000; to run them all, add --large" in captured.err
        assert captured.out == ""
    assert main(["plan", *many, "--large", "--set", "model.name=nothing"]) == 2
    assert "unknown model 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["recipe.epoch=3"], "recipe.epoch: unknown key; did you mean 'epochs'"),
        (["recipe.epochs=3.5"], "recipe.epochs"),
        (["grid.widths.settings=[]"], "grid.widths.settings: must hold at least 1 value"),
        (["grid={depths: {each_stage: [0]}}"], "grid.depths.each_stage[0]"),
        (["grid={depths: {settings: [[1, 1]]}}", "model.widths=[1, 1, 1]"], "stages"),
        (["model.block=bottleneck"], "block"),
        (["data.validation=5000"], "validation"),
        (["data.train_limit=99999"], "train_limit"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(folder, capsys, overrides, words):
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main(["run", "--manifest", "small.yaml", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert not (folder / "runs/store/studies").exists()


def test_a_store_that_cannot_be_written(folder, capsys, monkeypatch):
    (folder / "file").write_text("not a folder")
    monkeypatch.setenv("ROBUSTRAY_STORE", str(folder / "file/store"))
    assert main(["run", "--manifest", "small.yaml"]) == 2
    assert "can't write to" in capsys.readouterr().err


def test_an_s3_server_that_does_not_answer(folder, capsys, monkeypatch):
    monkeypatch.setenv("ROBUSTRAY_STORE", "s3://bucket/prefix")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-value")
    assert main(["run", "--manifest", "small.yaml"]) == 3
    message = capsys.readouterr().err
    assert "s3://bucket/prefix" in message
    assert "a-secret-value" not in message


def test_a_flipped_byte_in_a_data_file(folder, capsys, monkeypatch, shared_data):
    source = shared_data / "cifar-10-batches-py"
    copy = folder / "data/cifar-10-batches-py"
    copy.mkdir(parents=True)
    for name in ("data_batch_1", "test_batch"):
        shutil.copyfile(source / name, copy / name)
    damaged = bytearray((copy / "data_batch_1").read_bytes())
    damaged[1_000_000] ^= 1
    (copy / "data_batch_1").write_bytes(damaged)
    arguments = ["--set", "data={name: cifar10, parts: [data_batch_1], validation: 100}"]
    assert main(["run", "--manifest", "small.yaml", *arguments]) == 2
    assert "data_batch_1" in capsys.readouterr().err
    assert not (folder / "runs/store/studies").exists()


def test_missing_data_says_where_it_was_looked_for(folder, capsys):
    assert main(["run", "--manifest", "small.yaml", "--set", "data.name=mnist"]) == 2
    assert "ROBUSTRAY_DATA" in capsys.readouterr().err


def test_status_of_an_empty_store(folder, capsys):
    assert main(["status"]) == 0
    assert "no study" in capsys.readouterr().out


def test_status_lists_an_evaluation_that_was_stopped(folder, capsys):
    (folder / "runs/store/evaluations/mine-1a2b3c4d").mkdir(parents=True)
    (folder / "runs/store/evaluations/mine-1a2b3c4d/layout.json").write_text("{}")
    assert main(["status"]) == 0
    said = "evaluation mine-1a2b3c4d: not finished; its command again continues it"
    assert capsys.readouterr().out.splitlines() == [said]
    assert main(["status", "--json"]) == 0
    (job,) = json.loads(capsys.readouterr().out)["jobs"]
    assert (job["kind"], job["name"], job["state"]) == ("Evaluation", "mine", "unfinished")


def test_report_of_an_unknown_study(folder, capsys):
    assert main(["report", "--study", "nothing"]) == 2
    assert "'nothing' names 0 studies" in capsys.readouterr().err
