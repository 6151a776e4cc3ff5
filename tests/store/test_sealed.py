"""Documents that carry their digest: every flipped bit and every torn write is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustray.errors import CorruptObjectError
from robustray.store import (
    LocalStore,
    canonical_json,
    create_sealed,
    find_sealed,
    is_damaged,
    read_sealed,
    seal,
    unseal,
)

CONTENT = {"accuracy": 0.5, "name": "d1_w2", "metrics": {"pgd-20": 0.25}, "seed": 3, "none": None}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), JSON, max_size=4))
def test_what_was_sealed_comes_back(content):
    content = {k: v for k, v in content.items() if v not in (float("inf"), float("-inf"))}
    try:
        data = seal(content)
    except ValueError:  # an infinity further down: nothing that JSON can say
        return
    assert unseal(data, "x") == (content, True)


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_is_believed(bit):
    whole = seal(CONTENT)
    for place in range(len(whole)):
        harmed = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        try:
            found = unseal(harmed, "x")
        except CorruptObjectError:
            continue
        assert found == (CONTENT, True)  # the end of the last line was hit


def test_no_torn_write_is_believed():
    whole = seal(CONTENT)
    for length in range(len(whole) - 1):
        with pytest.raises(CorruptObjectError, match="the table is damaged"):
            unseal(whole[:length], "the table")


@pytest.mark.parametrize("data", [b"[1]", b'"text"', b"\xff", b"[" * 100_000, b'{"sha256": NaN}'])
def test_what_is_no_document_is_damage(data):
    with pytest.raises(CorruptObjectError):
        unseal(data, "x")


def test_documents_from_before_seals_are_read_and_known_as_such():
    assert unseal(canonical_json(CONTENT), "x") == (CONTENT, False)


def test_a_field_of_that_name_can_not_be_sealed():
    with pytest.raises(ValueError, match="sha256"):
        seal({"sha256": "mine"})


def test_a_damaged_document_is_replaced_and_an_intact_one_stays(tmp_path):
    store = LocalStore(tmp_path)
    assert find_sealed(store, "a/b.json") is None
    assert not is_damaged(store, "a/b.json")
    assert create_sealed(store, "a/b.json", CONTENT)
    assert not create_sealed(store, "a/b.json", {"other": 1})
    store.put("a/b.json", seal(CONTENT)[:-9])
    assert is_damaged(store, "a/b.json")
    with pytest.raises(CorruptObjectError, match=r"a/b\.json is damaged"):
        read_sealed(store, "a/b.json")
    assert create_sealed(store, "a/b.json", {"other": 1})
    assert read_sealed(store, "a/b.json") == ({"other": 1}, True)
