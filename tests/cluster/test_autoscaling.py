"""A cluster without any worker that grows when it is asked: each kind of job begins there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import textwrap

import pytest
import yaml

from tests.helpers.evaluation_runs import EvaluationPlace
from tests.helpers.growing_cluster import GrowingCluster
from tests.helpers.study_runs import REPOSITORY, STUDY, Place, end
from tests.runtime.test_mixing import document

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

TYPES = {"cpu": ({"CPU": 1}, 2), "gpu": ({"CPU": 1, "GPU": 1}, 1)}
ASKED = re.compile(r"no live node has room for (.*); asked the autoscaler for it, waiting until")
LINES = """
import time
import ray
from robustray.cluster import connect, find_room, read_capacity
from robustray.errors import MachineError, UserError
from robustray.manifest import Resources

def seek(cpus_do=False, **resources):
    wanted = Resources(**resources)
    try:
        find_room(wanted, print, cpus_do=cpus_do, work="attacking")
    except (UserError, MachineError) as error:
        print(f"{type(error).__name__}: {error}")

def hold():
    time.sleep(600)

with connect():
"""


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose nodes go after six seconds without work."""
    with contextlib.closing(GrowingCluster(TYPES)) as growing:
        yield growing.start(timeout=240).address


@pytest.fixture
def address(cluster):
    """The same, with no worker left."""
    said = ask(
        cluster, "while len(read_capacity().live) > 1: time.sleep(0.5)\nprint(read_capacity())"
    )
    assert "Capacity(live=((0.0, 0.0),), grows=True)" in said
    return cluster


def ask(address: str, code: str) -> str:
    """Run lines that are connected to the cluster in a process; return what they print."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    place = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", LINES + textwrap.indent(code, "    ")],
        env={**kept, **place}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run(place: Place, address: str, *arguments: str, job: str) -> int:
    place.environment |= {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    process = place.start(*arguments, job=job)
    try:
        return process.wait(400)
    finally:
        end(process)


def mixing(folder):
    manifest = document()
    manifest["judging"] = {**manifest["judging"], "certified": None, "multipliers": None}
    return Place(folder, yaml.safe_dump(manifest))


PLACES = {
    "sweep_width": lambda folder: Place(folder, STUDY.replace("epochs: 4", "epochs: 1")),
    "evaluate": EvaluationPlace,
    "train_mixing": mixing,
}


@pytest.mark.parametrize("job", PLACES)
def test_a_job_waits_for_the_first_node_and_finishes(address, tmp_path, job):
    place = PLACES[job](tmp_path)
    assert run(place, address, job=job) == 0, place.log[-3000:]
    assert ASKED.findall(place.log) == ["1 CPU"]
    assert "there is room after" in place.log


def test_an_evaluation_that_does_not_say_takes_the_gpu_that_can_come(address, tmp_path):
    place = EvaluationPlace(tmp_path)
    place.manifest.write_text(place.manifest.read_text().replace("gpus: 0, ", ""))
    assert run(place, address, job="evaluate") == 0, place.log[-3000:]
    assert ASKED.findall(place.log) == ["1 GPU and 1 CPU"]


def test_what_no_nodes_can_hold_is_refused_before_anything_is_written(address, tmp_path):
    place = Place(tmp_path)
    assert run(place, address, "--set", "resources.cpus=3", job="sweep_width") == 2, place.log
    assert ASKED.findall(place.log) == ["3 CPUs"]
    assert "The autoscaler says that no type and number of nodes" in place.log
    assert not list(tmp_path.glob("store/studies/*"))


def test_more_gpu_nodes_than_there_may_be_are_refused_or_done_without(address):
    said = ask(address, "seek(gpus=1, workers=2)\nseek(True, gpus=1, workers=2, wait_minutes=0.2)")
    two = "2 workers of {}1 CPU each"
    asked = [two.format("1 GPU and "), two.format("1 GPU and "), two.format("")]
    assert ASKED.findall(said) == asked
    assert said.count("NoRoomError: ") == 1
    assert "no GPU anywhere: attacking on CPUs" in said


def test_waiting_ends_at_the_deadline_and_the_request_with_it(address):
    said = ask(address, """
seek(gpus=0, wait_minutes=0.001)
print({table["state"] for table in ray.util.placement_group_table().values()})""")  # fmt: skip
    assert "MachineError: no node with room for 1 CPU was started within 0.001 min" in said
    assert "PENDING" not in said.splitlines()[-1]


def test_while_others_use_the_nodes_a_refusal_is_waited_out(address):
    two = "seek(workers=2, gpus=1, wait_minutes=0.2)"
    said = ask(address, f"""
seek(gpus=1)
holder = ray.remote(num_gpus=1, num_cpus=1)(hold).remote()
ray.wait([holder], timeout=5)
{two}
ray.cancel(holder, force=True)
while ray.available_resources().get("GPU") != 1: time.sleep(0.2)
{two}""")  # fmt: skip
    held, alone = re.findall(r"^(\w+Error): ", said, re.MULTILINE)
    assert (held, alone) == ("MachineError", "NoRoomError"), said
    assert "can start no more while others use its nodes" in said


def test_a_folder_of_each_node_and_the_doctor(address, tmp_path):
    place = Place(tmp_path)
    del place.environment["ROBUSTRAY_STORE"]
    assert run(place, address, job="sweep_width") == 2
    assert "Set ROBUSTRAY_STORE to s3://bucket/prefix" in place.log
    doctor = [sys.executable, "-m", "robustray.cli", "doctor"]
    done = subprocess.run(
        doctor, env=place.environment, capture_output=True, text=True, timeout=120
    )
    assert "an autoscaler may add others" in done.stdout, done.stdout + done.stderr


def test_the_older_autoscaler_is_asked_too():
    code = "print(read_capacity())\nseek(gpus=0, cpus=1)\nprint(read_capacity())"
    with contextlib.closing(GrowingCluster(TYPES, old=True)) as growing:
        said = ask(growing.start(timeout=240).address, code)
    assert "Capacity(live=((0.0, 0.0),), grows=True)" in said
    assert "there is room after" in said
    assert "(1.0, 0.0)" in said
