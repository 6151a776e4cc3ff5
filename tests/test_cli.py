"""The command line: plans, wrong input, exit codes; everything that needs no running sweep."""

from __future__ import annotations

import shutil

import pytest

from robustray.cli import main
from tests.helpers.study_runs import REPOSITORY, enter_folder

SPHERES = str(REPOSITORY / "manifests/alignment/spheres_pgd.yaml")
ALIGNMENT = str(REPOSITORY / "manifests/alignment/spheres_generator.yaml")
MIXING = str(REPOSITORY / "manifests/smoothing/digits.yaml")
WIDTH = str(REPOSITORY / "manifests/sweeps/width_512.yaml")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return enter_folder(tmp_path, monkeypatch)


@pytest.mark.slow
def test_dry_run_of_the_width_study_starts_nothing(folder, capsys):
    assert main(["run", "--manifest", WIDTH, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "trials       512" in out
    assert "146,266,074" in out or "145,815,514" in out  # the largest member, w = 20-20-20
    assert "20,924,151,552" in out
    assert "unmeasured" in out
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


def test_report_of_an_unknown_study(folder, capsys):
    assert main(["report", "--study", "nothing"]) == 2
    assert "'nothing' names 0 studies" in capsys.readouterr().err
