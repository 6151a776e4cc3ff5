"""Manifests that come along: found by their names wherever a command is started, and copied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustray.cli import main
from robustray.errors import UserError
from robustray.manifest import load_manifest, manifest_hash
from robustray.manifest.packaged import QUICKSTART, find_packaged, list_packaged, resolve_path
from tests.helpers.study_runs import REPOSITORY, enter_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_folder(tmp_path, monkeypatch)


def test_every_manifest_of_the_repository_comes_along_with_a_line_on_it(folder, capsys):
    assert main(["manifests"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    there = (REPOSITORY / "manifests").rglob("*.yaml")
    assert sorted(names) == sorted(path.relative_to(REPOSITORY).as_posix() for path in there)
    assert names[0] == QUICKSTART
    assert all(len(line.split()) > 3 for line in lines)
    (mart,) = (line for line in lines if line.startswith("manifests/training/mart.yaml "))
    assert "Wang et al. (ICLR 2020)" in mart


def test_nobody_need_read_the_whole_list(folder):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "robustray.cli", "manifests"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )
    os.close(writer)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_name_stands_for_the_packaged_file_unless_there_is_one_here(folder, capsys):
    assert main(["plan", QUICKSTART]) == 0
    said = capsys.readouterr()
    assert said.err == (
        f"{QUICKSTART} is not in this folder; the one that comes with robustray is used\n"
    )
    assert "d1-1-1_w0.5-0.5-0.5" in said.out
    assert main(["manifests", "copy", QUICKSTART, "manifests"]) == 0
    here = folder / "manifests/quickstart.yaml"
    here.write_text(here.read_text().replace("each_stage: [0.5, 1]", "each_stage: [0.25]"))
    capsys.readouterr()
    assert main(["plan", "--manifest", f"./{QUICKSTART}"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "w0.25-0.25-0.25" in said.out


def test_what_nobody_has_is_told_with_what_was_meant(folder):
    with pytest.raises(UserError, match=r"did you mean 'manifests/quickstart\.yaml'"):
        resolve_path("manifests/quickstar.yaml", print)
    with pytest.raises(UserError, match="unknown packaged manifest"):
        find_packaged("quickstart.yaml")
    assert resolve_path("elsewhere/quickstart.yaml", print) == Path("elsewhere/quickstart.yaml")


def test_two_names_for_the_manifest_are_refused(folder, capsys):
    assert main(["run", "a.yaml", "--manifest", "b.yaml"]) == 2
    assert "two manifests are named, a.yaml and b.yaml" in capsys.readouterr().err


def test_all_are_copied_and_nothing_that_differs_is_overwritten(folder, capsys):
    assert main(["manifests", "copy", "--all", "mine"]) == 0
    copied = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len(copied) == len(list_packaged())
    for path, packaged in zip(copied, list_packaged().values(), strict=True):
        assert path.read_bytes() == packaged.read_bytes()
    assert manifest_hash(load_manifest("mine/quickstart.yaml")) == manifest_hash(
        load_manifest(find_packaged(QUICKSTART))
    )
    assert main(["manifests", "copy", "--all", "mine"]) == 0  # equal files may be there
    changed = folder / "mine/training/mart.yaml"
    changed.write_text("mine")
    assert main(["manifests", "copy", "manifests/training/mart.yaml", "mine"]) == 2
    assert "mine/training/mart.yaml is there and differs" in capsys.readouterr().err
    assert changed.read_text() == "mine"


@pytest.mark.parametrize("words", [["mine"], ["--all", QUICKSTART, "mine"]])
def test_a_copy_names_manifests_or_wants_all(folder, words, capsys):
    assert main(["manifests", "copy", *words]) == 2
    assert "name manifests to copy, or --all of them" in capsys.readouterr().err


def test_the_quickstart_is_the_packaged_one_and_takes_changes(folder, capsys):
    (folder / "manifests").mkdir()
    (folder / QUICKSTART).write_text("kind: Nothing")
    assert main(["quickstart", "--dry-run", "--set", "recipe.epochs=3"]) == 0
    said = capsys.readouterr().out
    assert "name: quickstart" in said
    assert "epochs: 3" in said
