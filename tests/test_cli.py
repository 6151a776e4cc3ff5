"""The command line: plans, wrong input, exit codes; everything that needs no running sweep."""

from __future__ import annotations

import shutil

import pytest

from robustray.cli import main
from tests.sweeps.support import REPOSITORY, STUDY, Place

WIDTH = str(REPOSITORY / "manifests/sweeps/width_512.yaml")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ROBUSTRAY_STORE", "ROBUSTRAY_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "small.yaml").write_text(STUDY)
    return tmp_path


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
        (["--target-gmacs", "0.001"], "no network of three stages"),
        (["--target-gmacs", "-1"], "a number above 0"),
        (["--target-gmacs", "5", "--manifest", "small.yaml"], "stands alone"),
    ],
)
def test_a_wrong_target_is_one_message(folder, capsys, arguments, words):
    assert main(["plan", *arguments]) == 2
    assert words in capsys.readouterr().err


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
    assert main(["run", "--manifest", "small.yaml"]) == 2
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


def test_a_published_sweep_without_a_gpu_names_the_quickstart(tmp_path, shared_data):
    manifest = STUDY.replace("gpus: 0", "gpus: 1")
    place = Place(tmp_path, manifest)
    assert place.run() == 2
    assert "make quickstart" in place.log
    assert "--yes" in place.log
    assert not (tmp_path / "store/studies").exists()


def test_more_than_any_node_has(tmp_path):
    place = Place(tmp_path)
    assert place.run("--set", "resources.cpus=4096") == 2
    assert "4096 CPUs" in place.log
    assert "Live nodes" in place.log
    assert not (tmp_path / "store/studies").exists()
