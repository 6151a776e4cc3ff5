"""Answers that get lost, come late, or are no answers at all."""

import sqlite3
from dataclasses import replace

import botocore.exceptions
import pytest
import requests
from mlflow.exceptions import MlflowException

from robustray.errors import StoreUnavailableError
from robustray.tracking import MlflowSink, RecordRejectedError, TrackingUnavailableError
from robustray.tracking.faults import plain_errors, translate
from tests.helpers.http_proxy import FORWARD, LOSE_ANSWER, Proxy
from tests.helpers.mlflow_records import artifacts, history, record, runs_of

END = 1_700_000_100_000


def until_done(sink, wanted, tries=10):
    for _ in range(tries):
        try:
            return sink.apply(wanted)
        except TrackingUnavailableError:
            continue
    raise AssertionError("never done")


def test_every_answer_lost_once_doubles_nothing(mlflow_server, experiment):
    lost = set()

    def fault(path):
        kind = path.partition("?")[0].rpartition("/")[2]
        first = kind not in lost
        lost.add(kind)
        return LOSE_ANSWER if first else FORWARD

    wanted = record(experiment=experiment, artifacts={"a": b"1"}, status="FINISHED", end_ms=END)
    with Proxy(mlflow_server.endpoint, fault) as proxy:
        until_done(MlflowSink(proxy.endpoint), wanted)
    assert {"create", "search", "log-batch", "update", "a"} <= lost
    (run,) = runs_of(mlflow_server.endpoint, experiment)
    assert run.info.status == "FINISHED"
    assert len(history(mlflow_server.endpoint, run, "loss")) == 2
    assert artifacts(mlflow_server.endpoint, run) == {"a": b"1"}


@pytest.mark.parametrize("late", ["before the end", "before the next record"])
def test_a_run_made_late_by_a_request_given_up_is_removed(mlflow_server, experiment, late):
    broken = {"runs/create"}

    def fault(path):
        if any(path.endswith(end) for end in broken):
            broken.clear()
            return 504
        if late == "before the end" and path.endswith("runs/update"):
            proxy.held.pop()()
        return FORWARD

    with Proxy(mlflow_server.endpoint, fault) as proxy:
        sink = MlflowSink(proxy.endpoint)
        wanted = record(experiment=experiment)
        with pytest.raises(TrackingUnavailableError):
            sink.apply(wanted)
        sink.apply(wanted)
        if late == "before the next record":
            proxy.held.pop()()
            assert len(runs_of(mlflow_server.endpoint, experiment)) == 2
        sink.apply(replace(wanted, status="FINISHED", end_ms=END))
    (run,) = runs_of(mlflow_server.endpoint, experiment)
    assert run.info.status == "FINISHED"
    assert len(history(mlflow_server.endpoint, run, "loss")) == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(mlflow_server, experiment, status):
    left = [status] * 2
    with Proxy(mlflow_server.endpoint, lambda _: left.pop() if left else FORWARD) as proxy:
        sink = MlflowSink(proxy.endpoint)
        for _ in range(2):
            with pytest.raises(TrackingUnavailableError):
                sink.apply(record(experiment=experiment))
        sink.apply(record(experiment=experiment))


def test_refusals_are_told_apart():
    for status in (401, 403):
        with Proxy("http://nowhere", lambda _, status=status: status) as proxy:
            with pytest.raises(TrackingUnavailableError) as caught:
                MlflowSink(proxy.endpoint).apply(record())
            assert caught.value.refused
    with Proxy("http://nowhere", lambda _: 400) as proxy, pytest.raises(RecordRejectedError):
        MlflowSink(proxy.endpoint).apply(record())


def _http_error(status):
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("artifact", response=response)


def _s3_error(status):
    reply = {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(reply, "PutObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.ConnectionError("refused"), TrackingUnavailableError),
        (TimeoutError("slow"), TrackingUnavailableError),
        (OSError("no space left on device"), TrackingUnavailableError),
        (_http_error(503), TrackingUnavailableError),
        (_http_error(413), RecordRejectedError),
        (_s3_error(503), TrackingUnavailableError),
        (_s3_error(404), RecordRejectedError),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="u"), TrackingUnavailableError),
        (sqlite3.OperationalError("database is locked"), TrackingUnavailableError),
        (MlflowException("no connection"), TrackingUnavailableError),
        (MlflowException("QueuePool limit", error_code=3), TrackingUnavailableError),
        (MlflowException.invalid_parameter_value("too long"), RecordRejectedError),
        (ValueError("a fault of the program"), type(None)),
    ],
)
def test_what_passes_and_what_stays(error, kind):
    assert type(translate(error)) is kind


def test_errors_of_the_program_and_of_the_store_pass_unchanged():
    for error in (KeyError("x"), StoreUnavailableError("x")):
        with pytest.raises(type(error)), plain_errors():
            raise error
