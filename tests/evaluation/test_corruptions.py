"""Networks on corrupted images: right accuracies and mCE, resumed to the same bytes, users told."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robustray.errors import DataError, ManifestError
from robustray.evaluation.corruptions.commands import CORRUPTIONS
from robustray.evaluation.corruptions.run import run_corruptions
from robustray.evaluation.corruptions.scores import ALEXNET_ERRORS, Errors, score
from robustray.manifest import build_manifest, dump_manifest
from robustray.manifest.corruptions import BENCHMARK, Corruptions
from robustray.runtime.commands import Request
from robustray.store import LocalStore
from tests.helpers.corrupted_images import CLEAN, write_clean, write_set
from tests.helpers.mlflow_records import history, runs_of
from tests.helpers.study_runs import Place, fresh_database, started, wait_for
from tests.test_store_page import keys_of, undescribed

READER = "tests.helpers.corrupted_images:reader"
# Of 40 images at each severity: how many the first network gets wrong, and the second one.
WRONG = {
    "fog": [(4, 8), (8, 8), (12, 8), (16, 8), (20, 8)],
    "snow": [(2, 4)] * 5,
    "speckle_noise": [(40, 0)] * 5,
}
CANONICAL = ("result.json", "cells.csv", "networks.csv", "corruptions.html", "corruptions.png")
MANIFEST = {
    "kind": "Corruptions",
    "name": "small",
    "networks": {
        "first": {"factory": READER},
        "second": {"factory": {"function": READER, "arguments": {"channel": 1}}},
    },
    "data": {"name": "cifar10-c", "arguments": {"path": "own"}},
    "clean": CLEAN,
    "corruptions": list(WRONG),
    "baseline": "second",
    "compute_shape": 16,
    "batch_size": 32,
    "shard_size": 16,
    "resources": {"gpus": 0, "cpus": 1, "max_concurrent": 1},
}


def build(**changes):
    return build_manifest({**MANIFEST, **changes})


# ----------------------------------------------------------------------------------- numbers


def test_mce_by_the_published_errors_of_alexnet():
    """With an error of one half everywhere: half the mean of 1 / E, worked out by hand."""
    assert sum(ALEXNET_ERRORS.by_corruption.values()) / 15 == pytest.approx(0.788993, abs=1e-6)
    found = score(Errors(dict.fromkeys(BENCHMARK, 0.5), 0.25), BENCHMARK, ALEXNET_ERRORS)
    assert found.mean_accuracy == 0.5
    assert found.ce["gaussian_noise"] == pytest.approx(0.5 / 0.886428)
    assert found.ce["jpeg_compression"] == pytest.approx(0.824402, abs=1e-6)
    assert found.mce == pytest.approx(0.646726, abs=1e-6)
    assert found.relative_ce["fog"] == pytest.approx(0.25 / (0.819324 - 0.435))
    assert score(ALEXNET_ERRORS, BENCHMARK, ALEXNET_ERRORS).mce == pytest.approx(1)


def test_without_a_baseline_mce_is_the_mean_error():
    found = score(Errors({"fog": 0.3, "snow": 0.1, "saturate": 0.9}, 0.05), ["fog", "snow"])
    assert (found.mean_accuracy, found.mce) == (pytest.approx(0.8), pytest.approx(0.2))
    assert found.relative_mce == pytest.approx(0.15)
    assert score(Errors({"fog": 0.3}), ["fog"]).relative_mce is None


def test_a_baseline_without_errors_gives_no_number():
    errors, baseline = Errors({"fog": 0.3, "snow": 0.1}, 0.1), Errors({"fog": 0.0, "snow": 0.2}, 0)
    found = score(errors, ["fog", "snow"], baseline)
    assert (found.ce["fog"], found.mce, found.relative_mce) == (None, None, None)
    assert found.ce["snow"] == pytest.approx(0.5)


errors_of = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(
    lambda values: dict(zip("abc", values, strict=True))
)


@given(errors_of, errors_of, st.floats(0.1, 1))
def test_mce_is_linear_in_the_errors_and_1_for_the_baseline(errors, baseline, factor):
    base = Errors(baseline)
    assert score(base, "abc", base).mce == pytest.approx(1)
    whole = score(Errors(errors), "abc", base).mce
    scaled = Errors({name: factor * error for name, error in errors.items()})
    assert whole is not None
    assert score(scaled, "abc", base).mce == pytest.approx(factor * whole)


# --------------------------------------------------------------------------------- manifests


def test_defaults_are_the_benchmark():
    networks = {"a": {"factory": READER}}
    manifest = build_manifest({"kind": "Corruptions", "networks": networks})
    assert isinstance(manifest, Corruptions)
    assert (manifest.data.name, manifest.clean.name) == ("cifar10-c", "cifar10")
    assert (len(manifest.corruptions), manifest.severities) == (15, (1, 2, 3, 4, 5))
    assert (len(manifest.cells()), manifest.baseline) == (76, None)
    assert build_manifest(yaml.safe_load(dump_manifest(manifest))) == manifest
    whole = build(corruptions="all")
    assert isinstance(whole, Corruptions)
    everything = manifest.model_copy(update={"corruptions": whole.corruptions})
    assert (len(everything.corruptions), everything.averaged()) == (19, BENCHMARK)
    imagenet = {"kind": "Corruptions", "networks": networks, "data": {"name": "imagenet-c"}}
    manifest = build_manifest(imagenet)
    assert isinstance(manifest, Corruptions)
    assert (manifest.baseline, manifest.clean) == ("alexnet", None)
    tiny = {"name": "imagenet-c", "arguments": {"path": "Tiny-ImageNet-C", "num_classes": 200}}
    manifest = build_manifest({**imagenet, "data": tiny})
    assert isinstance(manifest, Corruptions)
    assert manifest.baseline is None  # AlexNet's errors are of other images and classes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"severities": [1, 6]}, r"severities\[1\]: must be less than or equal to 5 \(got 6\)"),
        ({"severities": [2, 2]}, "severities: 2 is named twice"),
        ({"corruptions": []}, "corruptions: must hold at least 1 value"),
        ({"networks": {}}, "networks: must hold at least 1"),
        ({"networks": {"a": {}}}, "networks.a: give a model or a factory, one of them"),
        (
            {"data": {"name": "cifar10"}},
            "data.name: cifar10 has no corruptions. Allowed: cifar10-c",
        ),
        (
            {"data": {"arguments": {"severity": 2}}},
            "data.arguments: severity stands in the manifest's own field",
        ),
        ({"data": {"arguments": {"pth": "x"}}}, "data.arguments.pth: unknown key"),
        ({"baseline": "third"}, "baseline: allowed here are null, first, second, alexnet"),
        ({"baseline": "alexnet"}, "baseline: the published errors of alexnet are of imagenet-c"),
        (
            {"baseline": "alexnet", "data": {"name": "imagenet-c"}, "severities": [1]},
            "baseline: the published errors of alexnet are means over severities 1 to 5",
        ),
        (
            {
                "baseline": "alexnet",
                "data": {"name": "imagenet-c", "arguments": {"num_classes": 200}},
            },
            "baseline: the published errors of alexnet are of imagenet-c with 1000 classes",
        ),
        ({"data": {"name": "imagenet-c"}, "severities": 3}, "severities"),
        ({"resources": {"gpus": 0, "workers": 2}}, "resources.workers: they train one trial"),
    ],
)
def test_wrong_manifests_are_told_in_one_message(changes, words):
    with pytest.raises(ManifestError, match=words):
        build(**changes)


# -------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of data files."""
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "own", WRONG)
    write_clean(folder, (2, 1))
    return folder


def run(folder, root, *, say=None, **changes):
    database = folder / "mlflow.db"
    if not database.exists():
        database.write_bytes(fresh_database().read_bytes())
    said: list[str] = []
    done = run_corruptions(
        build(**changes),
        LocalStore(folder / "store"),
        f"sqlite:///{database}",
        folder / "reports",
        data_root=str(root),
        say=say or said.append,
    )
    return done, "\n".join(said)


def canonical(done) -> dict[str, bytes]:
    return {name: (done.folder / name).read_bytes() for name in CANONICAL}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, root, local_ray):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, root)[0]


ray = pytest.mark.usefixtures("local_ray")


@ray
def test_accuracies_and_errors_are_those_that_the_images_tell(whole):
    _, done = whole
    first, second = done.result["networks"]["first"], done.result["networks"]["second"]
    assert [cell["correct"] for cell in first["corruptions"]["fog"]["severities"]] == [
        36, 32, 28, 24, 20,
    ]  # fmt: skip
    assert first["corruptions"]["speckle_noise"]["accuracy"] == 0
    assert (first["clean"]["correct"], second["clean"]["correct"]) == (38, 39)
    assert first["mean_accuracy"] == pytest.approx(1 - (0.3 + 0.05) / 2)  # no speckle noise in it
    assert first["mce"] == pytest.approx((0.3 / 0.2 + 0.05 / 0.1) / 2)
    assert first["relative_mce"] == pytest.approx((0.25 / 0.175 + 0) / 2)
    assert (second["mce"], second["relative_mce"]) == (pytest.approx(1), pytest.approx(1))
    assert first["corruptions"]["speckle_noise"]["ce"] is None  # the baseline makes no error


@ray
def test_csv_page_and_mlflow_show_the_same(whole):
    folder, done = whole
    cells = list(csv.DictReader(io.StringIO((done.folder / "cells.csv").read_text())))
    assert len(cells) == 2 * (1 + 3 * 5)
    (cell,) = [
        c for c in cells if (c["network"], c["corruption"], c["severity"]) == ("first", "fog", "2")
    ]
    assert (cell["images"], cell["correct"], cell["accuracy"]) == ("40", "32", "0.8")
    (row, _) = csv.DictReader(io.StringIO((done.folder / "networks.csv").read_text()))
    assert (row["clean_accuracy"], row["baseline"]) == ("0.95", "second")
    page = (done.folder / "corruptions.html").read_text()
    HTMLParser().feed(page)
    for words in ("Left out of all means: speckle noise.", "mCE %", "second = 100", ">90.0</td>"):
        assert words in page
    uri = f"sqlite:///{folder}/mlflow.db"
    runs = {one.data.params["network"]: one for one in runs_of(uri, "small")}
    metrics = runs["first"].data.metrics
    assert metrics["mean_accuracy"] == pytest.approx(0.825)
    assert metrics["mce"] == pytest.approx(1)
    assert metrics["ce.snow"] == pytest.approx(0.5)
    points = [(step, value) for step, value, _ in history(uri, runs["first"], "accuracy.fog")]
    assert points == [(k, pytest.approx(1 - k / 10)) for k in range(1, 6)]


@ray
def test_nothing_is_computed_twice(whole, root):
    folder, one = whole
    again, said = run(folder, root)
    assert (again.computed, canonical(again)) == (0, canonical(one))
    assert "corruptions  small-" in said


@ray
def test_a_run_that_breaks_in_the_middle_goes_on_and_shards_do_not_matter(whole, root, tmp_path):
    def break_once(text: str) -> None:
        if "all of 16" in text:
            raise RuntimeError("the terminal is gone")

    with pytest.raises(RuntimeError, match="the terminal is gone"):
        run(tmp_path, root, say=break_once, shard_size=40)
    before = len(list(tmp_path.glob("store/units/*/*/record.json")))
    assert before > 0
    assert not list(tmp_path.glob("store/corruptions/*/result.json"))
    done, _ = run(tmp_path, root, shard_size=40)
    assert done.computed == 2 * 16 - before
    assert canonical(done) == canonical(whole[1])


@ray
def test_a_network_that_fails_does_not_stop_the_others(root, tmp_path):
    networks = {
        "good": {"factory": READER},
        "bad": {"factory": "tests.helpers.corrupted_images:fragile"},
    }
    done, said = run(tmp_path, root, networks=networks, baseline="bad", corruptions=["fog"])
    assert list(done.result["networks"]) == ["good"]
    assert done.result["networks"]["good"]["mce"] is None  # nothing to compare with
    assert (list(done.failed), done.whole) == (["bad"], False)
    assert "a pixel is too bright" in done.failed["bad"]
    page = (done.folder / "partial.corruptions.html").read_text()
    assert "PARTIAL: not judged yet: bad." in page
    assert "<dd>not judged yet</dd>" in page, "the baseline"
    linked = {name for name in re.findall(r'href="([^"]+)"', page) if not re.search(r"^#|:", name)}
    assert linked == {"partial.networks.csv", "partial.cells.csv"}
    assert all((done.folder / name).is_file() for name in linked)
    assert "Best so far: good" in page
    assert not list(tmp_path.glob("store/corruptions/*/result.json"))
    assert "bad is given up" in said


@ray
def test_commands_tell_and_write_again(whole, root, tmp_path, monkeypatch):
    folder, done = whole
    monkeypatch.setenv("ROBUSTRAY_DATA", str(root))
    said: list[str] = []
    request = Request(LocalStore(folder / "store"), tmp_path, said.append)
    CORRUPTIONS.plan(build(), request)
    assert f"corruptions  {done.id}" in said[0]
    assert "1,280 forward passes" in said[0]
    CORRUPTIONS.status(build(), request)
    assert said[1].splitlines()[0] == f"{done.id}: finished"
    assert said[1].count("48 of 48 units") == 2
    CORRUPTIONS.report(build(), request)
    again = {name: (tmp_path / done.id / name).read_bytes() for name in CANONICAL}
    assert again == canonical(done)
    told: list[Any] = []
    overview = CORRUPTIONS.overview(replace(request, tell=told.append))
    assert list(overview) == [f"corruptions {done.id}: finished"]
    assert told[0]["progress"] == {"unit": "networks", "done": 2, "total": 2}
    assert undescribed(keys_of(folder / "store")) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"corruptions": ["fog", "rain"]}, r"own/rain.npy is missing \(.* has fog, labels, snow"),
        ({"data": {"name": "cifar10-c"}}, "CIFAR-10-C/fog.npy is missing; unpack CIFAR-10-C.tar"),
        ({"data": {"first": 41, "arguments": {"path": "own"}}}, "first is 41, but there are only"),
        ({"clean": {"name": "digits"}}, "clean and fog/1 differ in image_shape"),
    ],
)
def test_a_plan_refuses_what_is_not_there(root, tmp_path, monkeypatch, changes, words):
    monkeypatch.setenv("ROBUSTRAY_DATA", str(root))
    request = Request(LocalStore(tmp_path / "store"), tmp_path, print)
    with pytest.raises((DataError, ManifestError), match=words):
        CORRUPTIONS.plan(build(**changes), request)


class CorruptionsPlace(Place):
    """A folder with a manifest of kind Corruptions, which `robustray run` runs."""

    def start(self, *arguments: str, job: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "robustray.cli", "run", "--manifest", str(self.manifest)]
        return subprocess.Popen(
            [*command, *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=(self.folder / "log.txt").open("a"),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def records(self) -> list[Path]:
        return sorted(self.folder.glob("store/units/*/*/record.json"))

    def canonical(self) -> dict[str, bytes]:
        (folder,) = (self.folder / "store/corruptions").iterdir()
        return {name: (folder / "report" / name).read_bytes() for name in CANONICAL}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_driver_and_the_same_command_again(root, whole, tmp_path):
    text = json.dumps({**MANIFEST, "shard_size": 2, "bundle": 1})
    place = CorruptionsPlace(tmp_path, text, ROBUSTRAY_DATA=str(root))
    with started(place) as process:
        before = wait_for(lambda: found if len(found := place.records()) > 3 else None)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    place.kill_survivors()
    times = {path: path.stat().st_mtime_ns for path in before}
    assert not list(tmp_path.glob("store/corruptions/*/result.json"))
    assert place.run() == 0, place.log
    assert place.canonical() == canonical(whole[1])
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())
