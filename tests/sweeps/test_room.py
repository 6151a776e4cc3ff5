"""Sweeps for which the machine at hand has no room: told at once, and nothing is begun."""

import pytest

from robustray.cli import main
from tests.helpers.study_runs import enter_folder

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(600)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return enter_folder(tmp_path, monkeypatch)


def test_a_published_sweep_without_a_gpu_names_the_quickstart(folder, capsys):
    assert main(["run", "--manifest", "small.yaml", "--set", "resources.gpus=1"]) == 2
    said = capsys.readouterr().err
    assert "make quickstart" in said
    assert "--yes" in said
    assert not (folder / "runs/store/studies").exists()


def test_more_than_any_node_has(folder, capsys):
    assert main(["run", "--manifest", "small.yaml", "--set", "resources.cpus=4096"]) == 2
    said = capsys.readouterr().err
    assert "4096 CPUs" in said
    assert "Live nodes" in said
    assert not (folder / "runs/store/studies").exists()
