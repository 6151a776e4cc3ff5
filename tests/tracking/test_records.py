import math
from dataclasses import replace

import pytest

from robustray.tracking import DataUse, MetricPoint, ModelRecord
from robustray.tracking.records import flatten
from tests.helpers.mlflow_records import points, record

MODEL = ModelRecord(
    name="a", weights_sha256="0" * 64, network={}, step=1, metrics={}, time_ms=1, fetch=bytes
)


def test_settings_become_dotted_parameters_without_what_is_not_set():
    assert flatten({"a": {"b": 1, "c": None}, "d": None, "e": [1, 2]}) == {
        "a.b": "1",
        "e": "[1, 2]",
    }


def test_parameters_have_no_credentials():
    assert flatten({"weights": {"uri": "https://me:s3cret@host/w"}}) == {
        "weights.uri": "https://***@host/w"
    }


def test_digest_sees_every_part_of_the_content():
    base = record(artifacts={"a/b.txt": b"x"})
    others = [
        replace(base, name="other"),
        replace(base, parent_key="study"),
        replace(base, params={"lr": "0.2", "beta": "6"}),
        replace(base, tags={}),
        replace(base, metrics=points(3)),
        replace(base, metrics=points(2)[::-1]),
        replace(base, artifacts={"a/b.txt": b"y"}),
        replace(base, start_ms=1),
        replace(base, data=(DataUse("digits", "0", "test"),)),
        replace(base, models=(MODEL,)),
        replace(base, models=(replace(MODEL, registered="study"),)),
    ]
    assert len({r.digest() for r in [base, *others]}) == len(others) + 1


def test_digest_leaves_out_how_it_ended_and_the_order_of_names():
    base = record()
    ended = replace(base, status="FINISHED", end_ms=1_700_000_001_000)
    assert ended.digest() == base.digest()
    assert replace(base, params={"beta": "6", "lr": "0.1"}).digest() == base.digest()


def test_every_nan_is_the_same_nan():
    a, b = (record(metrics=(MetricPoint("loss", v, 0, 0),)) for v in (math.nan, float("nan")))
    assert a.digest() == b.digest()


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": ""},
        {"key": "it's"},
        {"key": "k" * 251},
        {"parent_key": "study/trial"},
        {"parent_key": "two\nlines"},
        {"name": ""},
        {"experiment": ""},
        {"status": "DONE"},
        {"start_ms": -1},
        {"metrics": (MetricPoint("loss", 1.0, 0, -1),)},
        {"artifacts": {"../up": b""}},
        {"artifacts": {"/root": b""}},
        {"artifacts": {"": b""}},
    ],
)
def test_what_mlflow_could_never_hold_is_refused_at_once(wrong):
    with pytest.raises(ValueError, match=r"run|key|status|artifact"):
        record(**wrong)
