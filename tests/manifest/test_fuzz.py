"""Manifests that anybody may have written: one clear refusal, soon, and in little memory."""

from __future__ import annotations

import copy
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustray.manifest import ManifestError, Sweep, dump_manifest, load_manifest, manifest_hash
from robustray.manifest.loading import build_manifest
from robustray.manifest.reading import DEEPEST, LARGEST_FILE, MOST_VALUES

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
KINDS = [
    "quickstart.yaml",
    "sweeps/models.yaml",
    "sweeps/width_search_512.yaml",
    "training/advanced_trades_500k.yaml",
    "evaluation/autoattack.yaml",
    "evaluation/study.yaml",
    "evaluation/curve.yaml",
    "smoothing/digits.yaml",
    "alignment/spheres_pgd.yaml",
    "alignment/squares32_projections.yaml",
    "alignment/mnist35_generator.yaml",
    "alignment/spheres_comparison.yaml",
]
SECONDS = 2.0  # of processor time
MEGABYTES = 400
# What Python and pydantic call things, and what no message may say.
FOREIGN = re.compile(
    r"Input should|\b(dict|tuple|str|int|bool|NoneType|None|True|False|BaseModel|pydantic|"
    r"Traceback|datetime|function-\w+|constrained-\w+)\b(?!\.)|<class|object at 0x"
)

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 10**6, 10**9, 10**12, 10**30, 2**63, -(10**30),
    0.0, -0.0, 1e-300, 0.5, 8.0, 1e30, 1e308, float("inf"), float("-inf"), float("nan"),
    "", " ", "8/255", "8/0", "1e400", "1e999999999", "1e-999999999", "inf", "nan", "-8/255",
    "../..", "a" * 5000, "\u2028", "\U0001f600", "Linf", "CIFAR-10", "standard", "a:b", "s3://",
    [], {}, [[]], [None], [1], ["a"], [1, 2, 3], list(range(399)), [10**30] * 3, {"a": 1},
    {"name": "x"}, {"name": None}, [{"name": "x", "options": {"steps": 10**30}}], {1: 2}, {"": ""},
    [[[[[[[[]]]]]]]], {"each_stage": list(range(1, 400)), "stages": 3},
    {"each_stage": [1, 2], "stages": 10**9},
]  # fmt: skip
NOISE = [
    "*a", "&a [*a]", "!!python/object:os.system x", "!!set {a}", "? [a]\n: b", "{", "]", "'", "%",
    "2001-99-99", "0x" + "f" * 5000, "1:" * 5000 + "1", "9" * 5000, "." * 9999, "<<: 3", "\t",
    "- - - - -", "---\na: 1\n---\nb: 2", "\x00", "a: 1\na: 2", "=", "!!binary x", "!!float x",
]  # fmt: skip

QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\(got .*""")  # words of the manifest


def resolved(name: str) -> dict[str, Any]:
    """Return a shipped manifest with every field in it."""
    return yaml.safe_load(dump_manifest(load_manifest(MANIFESTS / name)))


DOCUMENTS = {name: resolved(name) for name in KINDS}


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values of a document."""
    found = [path] if path else []
    items = document.items() if isinstance(document, dict) else ()
    items = enumerate(document) if isinstance(document, list) else items
    return found + [inner for key, one in items for inner in places(one, (*path, key))]


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at a path."""
    copied = copy.deepcopy(document)
    place = copied
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copied


def judged(act: Any) -> ManifestError | None:
    """Run what reads a manifest: it is read, or refused in words, soon, in little memory."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.thread_time()
    found = None
    try:
        manifest = act()
        assert len(manifest_hash(manifest)) == 64
        assert not isinstance(manifest, Sweep) or not manifest.grid or manifest.grid.count() < 1e7
    except ManifestError as error:
        found = error
    spent = time.thread_time() - begun  # other threads of the process are not its doing
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert spent < SECONDS, f"{spent:.1f} s"
    assert (after.ru_maxrss - before.ru_maxrss) / 1024 < MEGABYTES
    if found is not None:
        assert found.exit_code == 2
        assert len(str(found)) < 20_000
        own = QUOTED.sub("", str(found))
        assert not FOREIGN.search(own), str(found)
    return found


@settings(max_examples=500, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(st.data())
def test_any_values_at_any_places(data):
    name = data.draw(st.sampled_from(KINDS))
    document = DOCUMENTS[name]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)))
        how = data.draw(st.sampled_from(["replace", "drop", "double", "nest", "rename"]))
        try:
            value = data.draw(st.sampled_from(HOSTILE))
            if how == "replace":
                document = changed(document, path, value)
            elif how == "nest":
                document = changed(document, path, {"name": [value]})
            elif how == "double":
                document = changed(document, path, [value, value])
            elif isinstance(path[-1], str):
                document = copy.deepcopy(document)
                place = document
                for key in path[:-1]:
                    place = place[key]
                taken = place.pop(path[-1])
                if how == "rename":
                    place[path[-1].upper()] = taken
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change took the place away
    judged(lambda: build_manifest(copy.deepcopy(document), (), "m.yaml"))


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(data=st.data())
def test_any_text(tmp_path_factory, data):
    name = data.draw(st.sampled_from(KINDS))
    text = (MANIFESTS / name).read_text()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        how = data.draw(st.sampled_from(["insert", "cut", "repeat", "characters"]))
        if how == "insert":
            text = text[:at] + data.draw(st.sampled_from(NOISE)) + text[at:]
        elif how == "cut":
            text = text[:at] + text[at + data.draw(st.integers(1, 80)) :]
        elif how == "repeat":
            text = text[:at] + text[at : at + 40] * data.draw(st.sampled_from([2, 50])) + text[at:]
        else:
            text = text[:at] + data.draw(st.text(max_size=20)) + text[at:]
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    judged(lambda: load_manifest(path))


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(st.data())
def test_any_overrides(data):
    name = data.draw(st.sampled_from(KINDS))
    path = data.draw(st.sampled_from(places(DOCUMENTS[name])))
    field = ".".join(map(str, path)) + data.draw(st.sampled_from(["", ".a", ".0", ".", "=", " "]))
    values = st.one_of(st.sampled_from(NOISE), st.sampled_from(HOSTILE).map(str), st.text())
    override = f"{field}={data.draw(values)}"  # not on the clock: the first text takes seconds
    judged(lambda: load_manifest(MANIFESTS / name, [override]))


@pytest.mark.parametrize("name", KINDS)
def test_every_number_has_a_limit_that_names_its_field(name):
    document = DOCUMENTS[name]
    for path in places(document):
        value = document
        for key in path:
            value = value[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        huge = 10**15 if isinstance(value, int) else 1e15
        if path[-1] == "seed":
            huge = 10**19
        found = judged(lambda p=path, h=huge: build_manifest(changed(document, p, h), (), "m"))
        assert found is not None, f"{path} = {huge} is accepted"
        dotted = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, path)))
        assert dotted in str(found)


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]" for i in range(1, levels)]
    return "\n".join(lines)


NESTED = "[" * 5000 + "]" * 5000
CHAIN = "\n".join(["b0: &b0 [1]", *(f"b{i}: &b{i} [*b{i - 1}]" for i in range(1, 3000))])
SMALL = "kind: Sweep\nname: a\ndata: {name: digits}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SMALL + bomb(12), f"more than {MOST_VALUES:,} values"),
        (SMALL + "model:\n  block: *x", "not valid YAML"),
        (bomb(9) + "\nkind: Sweep\nname: a\ndata: {parts: *a8}", "values"),
        (SMALL + f"grid: {NESTED}", f"more than {DEEPEST} levels"),
        (SMALL + CHAIN, f"more than {DEEPEST} levels"),
        (SMALL + "grid: &g {widths: *g}", "alias *g contains itself"),
        (SMALL + f"seed: {'9' * 5000}", "is no integer that can be read"),
        (SMALL + "recipe: {threat: {eps: 1e999999999}}", "recipe.threat.eps: its exponent"),
        (SMALL + "recipe: {threat: {eps: 1e400}}", "recipe.threat.eps: its exponent"),
        (SMALL + "recipe: {threat: {eps: 1.0e+400}}", "recipe.threat.eps: must be a finite"),
        (SMALL + "recipe: {threat: {eps: .nan}}", "recipe.threat.eps: must be a finite"),
        (SMALL + "recipe: {epochs: 1000000000000000000000000000000}", "recipe.epochs: must be"),
        (SMALL + "model: {depths: [1000000, 1, 1]}", "model.depths[0]: must be less than"),
        (SMALL + "grid: {depths: {each_stage: [1000000]}}", "less than or equal to 10,000"),
        (SMALL + "grid: {depths: {each_stage: [9000]}}", "depths of 27,000 blocks; at most 600"),
        (SMALL + f"grid: {{widths: {{each_stage: {list(range(1, 400))}}}}}",
         "grid: 63,521,199 trials; at most 1,000,000"),
        (SMALL + "grid: {widths: {each_stage: [1, 2], stages: 1000000000}}", "grid.widths.stages"),
        (SMALL + "a: " + "x" * LARGEST_FILE, "is larger than"),
        (SMALL + "a: 2001-99-99", "'2001-99-99' is no date"),
        ("kind: [Sweep]", "kind: must be Alignment, Corruptions, Evaluation, Mixing, Sweep or"),
        ("kind: evaluation", "did you mean 'Evaluation'?"),
        ("name: a", "kind: is missing"),
    ],
)  # fmt: skip
def test_what_is_too_much_or_torn_is_one_message(tmp_path, text, words):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    found = judged(lambda: load_manifest(path))
    assert found is not None
    assert words in str(found)
    assert str(path) in str(found)
    assert "\n" not in str(found)
