import math

from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils import validation

from robustray.tracking import MetricPoint, limits

texts = st.text(max_size=400) | st.text(alphabet="a./\\ :%~\0\ud800é", max_size=30)
names = st.dictionaries(texts, st.text(max_size=20) | st.just("é" * 9000), max_size=20)


@settings(max_examples=200, deadline=None)
@given(texts)
@example("..")
@example("a/../b")
@example("/a//b/")
@example("top1@8/255")
def test_names_are_what_mlflow_accepts(name):
    tidy = limits.tidy_name(name)
    validation._validate_param_name(tidy)
    validation._validate_metric_name(tidy)
    assert 0 < len(tidy) <= limits.MAX_NAME
    assert limits.tidy_name(tidy) == tidy


def test_allowed_names_stay_and_different_names_stay_different():
    allowed = ["loss", "robust/accuracy", "pgd-20", "a b:c.d", "é"]
    assert [limits.tidy_name(name) for name in allowed] == allowed
    odd = ["a+b", "a=b", "a@b", "a_b", "x" * 300, "x" * 301, "/a", "a/", "./a"]
    assert len({limits.tidy_name(name) for name in odd}) == len(odd)


def test_values_are_cut_and_infinities_made_finite():
    assert limits.tidy_values({"p": "x" * 6001}, 6000)["p"] == "x" * 5999 + "…"
    assert limits.tidy_values({"p": "a\0\ud800"}, 6000)["p"] == "a\ufffd?"
    assert limits.tidy_values({"p": 3}, 10) == {"p": "3"}  # type: ignore[dict-item]
    values = [limits.tidy_point(MetricPoint("m", v, 0, 0)).value for v in (math.inf, -math.inf)]
    assert values == [1.7976931348623157e308, -1.7976931348623157e308]
    assert math.isnan(limits.tidy_point(MetricPoint("m", math.nan, 0, 0)).value)


@settings(max_examples=25, deadline=None)
@given(names, names, st.integers(0, 2500), st.integers(0, 250))
def test_batches_lose_nothing_and_keep_to_the_limits(params, tags, points, extra):
    params = limits.tidy_values(params | {f"p{i}": "v" for i in range(extra)}, 6000)
    tags = limits.tidy_values(tags | {f"t{i}": "v" for i in range(extra)}, 8000)
    metrics = [MetricPoint("m", 0.1, i, i) for i in range(points)]
    cut = list(limits.batches(params, metrics, tags))
    for batch in cut:
        sent = (
            [Metric(p.name, p.value, p.timestamp_ms, p.step) for p in batch.metrics],
            [Param(*pair) for pair in batch.params],
            [RunTag(*pair) for pair in batch.tags],
        )
        validation._validate_batch_log_limits(*sent)
        validation._validate_batch_log_data(*sent)
    assert [pair for batch in cut for pair in batch.params] == list(params.items())
    assert [point for batch in cut for point in batch.metrics] == metrics
    assert [pair for batch in cut for pair in batch.tags] == list(tags.items())
    assert len(cut) <= 2 + (len(params) + len(tags)) // 30 + points // 1000 * 2
