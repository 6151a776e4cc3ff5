"""Equal values have equal bytes, and bytes say what the value was."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.store import canonical_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4), max_leaves=20
)


@given(value=VALUES)
@settings(max_examples=100, deadline=None)
def test_round_trip(value: object) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data


def test_the_form_is_fixed() -> None:
    value = {"b": [1, 2.5, 1e-7, True, None], "ä": "ü", "a": (8 / 255,)}
    expected = '{"a":[0.03137254901960784],"b":[1,2.5,1e-07,true,null],"ä":"ü"}\n'
    assert canonical_json(value) == expected.encode()
    assert canonical_json(dict(reversed(value.items()))) == expected.encode()


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"x": -math.inf}])
def test_what_is_not_a_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: 2}, [{"a": {None: 1}}], {1, 2}, b"x", object()])
def test_what_json_has_no_word_for_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)
