"""Which thing of the store is meant: by id, by name, by how an id begins."""

import json

import pytest

from robustray.errors import UserError
from robustray.store import LocalStore
from robustray.store.opening import choose_id, newest_attempt

KNOWN = ["mine-aa11", "mine2-bb22", "mine2-cc33", "other-dd44"]


@pytest.fixture
def store(tmp_path):
    store = LocalStore(tmp_path)
    for id_, started in (("mine2-bb22", 200), ("mine2-cc33", 100)):
        for number in (1, 2):
            content = json.dumps({"started_ms": started + number}).encode()
            store.put(f"studies/{id_}/trials/t/attempts/{number:04}.json", content)
    store.put("studies/mine2-cc33/trials/t/attempts/0003.json", b"{torn")
    return store


def choose(store, wanted, **options):
    return choose_id(
        wanted, KNOWN, "studies", lambda id_: newest_attempt(store, f"studies/{id_}"), **options
    )


@pytest.mark.parametrize(
    ("wanted", "id_"),
    [
        ("mine-aa11", "mine-aa11"),
        ("mine", "mine-aa11"),  # though mine2 begins so too
        ("mine2-c", "mine2-cc33"),
        ("oth", "other-dd44"),
    ],
)
def test_an_equal_name_wins_over_a_beginning(store, wanted, id_):
    assert choose(store, wanted) == id_


def test_of_several_with_one_name_the_newest_is_offered_first(store):
    assert newest_attempt(store, "studies/mine2-bb22") == 202
    with pytest.raises(UserError, match=r"2 studies.*mine2-bb22, mine2-cc33"):
        choose(store, "mine2")
    store.put("studies/mine2-cc33/trials/t/attempts/0004.json", b'{"started_ms": 900}')
    with pytest.raises(UserError, match=r"2 studies.*mine2-cc33, mine2-bb22"):
        choose(store, "mine2")


def test_nothing_is_found_by_less_than_was_asked_for(store):
    with pytest.raises(UserError, match=r"'mein' names 0 studies.*Known: mine-aa11"):
        choose(store, "mein")
    with pytest.raises(UserError, match="did you mean 'other'"):
        choose(store, "Other")
    with pytest.raises(UserError, match="names 0 studies"):
        choose(store, "")
    with pytest.raises(UserError, match="names 0 studies"):
        choose(store, "oth", beginnings=False)


def test_the_newest_attempt_is_found_wherever_its_key_sorts(store):
    for number in range(100):
        key = f"studies/other-dd44/trials/t{number:03}/attempts/0001.json"
        store.put(key, json.dumps({"started_ms": 1000 - number}).encode())
    assert newest_attempt(store, "studies/other-dd44") == 1000
