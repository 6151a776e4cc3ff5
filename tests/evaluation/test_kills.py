"""kill -9 of the driver and a polite stop: the same command ends with the same bytes."""

import json
import os
import signal

import pytest

from tests.helpers.evaluation_runs import EvaluationPlace, robustray
from tests.helpers.study_runs import started, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> EvaluationPlace:
    place = EvaluationPlace(tmp_path_factory.mktemp("undisturbed"), steps=80)
    assert place.run() == 0, place.log
    return place


def some_committed(place):
    records = place.records()
    return records if len(records) >= 3 else None


def test_killed_driver_and_the_same_command_again(undisturbed, tmp_path):
    place = EvaluationPlace(tmp_path, steps=80)
    with started(place) as process:
        wait_for(lambda: some_committed(place))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    place.kill_survivors()
    before = {path: path.stat().st_mtime_ns for path in place.records()}
    assert not (place.evaluation / "result.json").exists()
    assert place.run() == 0, place.log
    assert place.canonical() == undisturbed.canonical()
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    sessions = sorted((place.evaluation / "attempts").iterdir())
    assert [json.loads(p.read_text())["outcome"] for p in sessions] == ["running", "finished"]


def test_a_polite_stop_is_partial_and_goes_on(undisturbed, tmp_path):
    place = EvaluationPlace(tmp_path, steps=80)
    with started(place) as process:
        wait_for(lambda: some_committed(place))
        process.terminate()
        assert process.wait(240) == 130, place.log
    assert "PARTIAL" in place.log
    assert "run the same command again" in place.log
    assert not (place.evaluation / "result.json").exists()
    code, status = robustray(
        place.folder, place.environment, "status", "--manifest", str(place.manifest)
    )
    assert (code, "not finished" in status) == (0, True), status
    code, status = robustray(place.folder, place.environment, "status")
    assert "not finished; its command again continues it" in status, status
    assert place.run() == 0, place.log
    assert place.canonical() == undisturbed.canonical()


def test_after_completion_nothing_is_computed(undisturbed):
    before = undisturbed.canonical(), undisturbed.provenances()
    assert undisturbed.run() == 0
    assert (undisturbed.canonical(), undisturbed.provenances()) == before
    assert "computed     nothing was left" in undisturbed.log
    undisturbed.expect_no_survivors()
