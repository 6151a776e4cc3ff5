"""Which code a run is started from, as git and the command line tell."""

import shutil
import subprocess

import pytest

from robustray.runtime.source import find_source, source_tags


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr("sys.argv", ["/somewhere/jobs/sweep_width.py", "--manifest", "m.yaml"])
    find_source.cache_clear()
    yield tmp_path
    find_source.cache_clear()


def git(*words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.check_output(["git", *who, *words], text=True).strip()


def test_outside_a_repository_only_the_script_is_known(folder):
    assert find_source() == {"name": "sweep_width.py"}


def test_without_git_only_the_script_is_known(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    assert find_source() == {"name": "sweep_width.py"}


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_a_repository_tells_its_commit_and_whether_files_were_changed(folder):
    git("init", "-q")
    (folder / "net.py").write_text("a")
    git("add", "net.py")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")
    (folder / "new.txt").write_text("not tracked")
    assert find_source() == {"name": "sweep_width.py", "commit": commit, "dirty": "false"}
    find_source.cache_clear()
    (folder / "net.py").write_text("b")
    assert find_source()["dirty"] == "true"
    assert source_tags(find_source()) == {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "sweep_width.py",
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.dirty": "true",
    }


def test_attempts_of_earlier_versions_say_nothing():
    assert source_tags({}) == {}
