"""Pages of the site that are made from the code: complete, and made of what they say."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("griffe", reason="the site's tools are not installed")

from benchmarks.items import FINISHED, TOO_LONG, Outcome, write_report
from robustray.attacks import list_attacks, list_suites
from robustray.cli.main import make_parser
from robustray.kinds import find_kind
from robustray.manifest.recipe import InnerAttack, Recipe
from robustray.models import list_models
from robustray.registry import KINDS
from robustray.zoo import load_records
from scripts.pages import attacks, commands, manifests, measured, networks, zoo
from scripts.pages.repository import mend_links
from scripts.pages.site import expand, find_foreign
from scripts.pages.values import describe_default, describe_type, spell_number

OURS = [name for name in KINDS.names() if not KINDS.is_brought(name)]


def test_every_field_of_every_kind_has_a_description_and_no_other_has():
    fields = {
        manifests.key_of(place.section, name)
        for kind in OURS
        for place in manifests.sections_of(find_kind(kind).model)
        for name in place.section.model_fields
    }
    described = manifests.descriptions()
    assert sorted(fields - described.keys()) == [], "write a line on each in fields.yaml"
    assert sorted(described.keys() - fields) == [], "no such fields"
    for field, text in described.items():
        assert text.endswith((".", "?")), f"{field}: a sentence"


@pytest.mark.parametrize("kind", OURS)
def test_a_kind_has_a_page_with_each_of_its_sections(kind):
    page = manifests.render_kind(kind)
    for place in manifests.sections_of(find_kind(kind).model):
        assert f"{{ #{manifests.anchor_of(place)} }}" in page
        for name in place.section.model_fields:
            assert f"`{name}`" in page


def describe(section, name):
    """Return what the reference says of a field's values."""
    field, schema = section.model_fields[name], section.model_json_schema()["properties"][name]
    return describe_type(schema, field), describe_default(field)


def test_what_a_field_takes_is_told_in_words():
    assert describe(Recipe, "epochs") == ("whole number, 1 to 100,000", "`100`")
    assert describe(Recipe, "beta") == ("number, more than 0", "`6`")
    assert describe(Recipe, "grad_clip") == ("number, more than 0 or null", "`5`")
    assert describe(InnerAttack, "step_size") == ("number, more than 0", "`2/255`")
    assert describe(InnerAttack, "start") == ("`normal` or `uniform`", "`normal`")
    assert describe(Recipe, "objective")[0] == "a [objective](../names.md#objectives)"
    assert describe(Recipe, "threat") == ("section", "its own defaults")


def test_numbers_are_spelled_as_people_write_them():
    assert [spell_number(one) for one in (8 / 255, 0.1, 2e-4, 1.0)] == [
        "8/255", "0.1", "0.0002", "1",
    ]  # fmt: skip


def test_every_command_and_option_stands_on_a_page():
    pages = commands.make_pages()
    for name, (said, parser) in commands.subcommands(make_parser()):
        page = pages[f"reference/commands/{name}.md"]
        assert said
        for option in parser._option_string_actions.keys() - {"-h", "--help"}:
            assert option in page, f"{name} {option}"


def test_all_names_are_listed():
    (catalogue, _), (suites,), (records,) = (
        list(part.make_pages().values()) for part in (networks, attacks, zoo)
    )
    assert [one for one in list_models() if f"{{ #{one} }}" not in catalogue] == []
    assert [one for one in list_attacks() if f"{{ #{one} }}" not in suites] == []
    assert [one for one in list_suites() if f"`{one}`" not in suites] == []
    assert [one for one in load_records() if f"## {one} " not in records] == []


def test_links_between_the_folder_and_the_files_beside_it():
    inside = "[a](../../CONTRIBUTING.md#x) ![b](../figures/b.png) [c](https://c.d/e.md) [f](#g)"
    assert mend_links(inside, page="results/sweep.md") == (
        "[a](../contributing.md#x) ![b](../figures/b.png) [c](https://c.d/e.md) [f](#g)"
    )
    beside = "[a](SECURITY.md) [b](docs/guides/data.md#size)"
    assert mend_links(beside, beside="docs") == "[a](security.md) [b](guides/data.md#size)"


def test_a_folder_in_the_navigation_is_its_pages():
    pages = ["a/b.md", "a/index.md", "c.md"]
    assert expand([{"A": "a/"}, "c.md"], pages) == [{"A": ["a/index.md", "a/b.md"]}, "c.md"]


def test_what_a_page_would_fetch_from_elsewhere_is_found():
    own = '<script src="../assets/a.js"></script><img src=a.png><a href="https://a.org/">a</a>'
    assert find_foreign(own) == []
    foreign = '<link rel="stylesheet" href="//b.org/b.css"><img alt="" src="https://c.org/c.png">'
    assert find_foreign(own + foreign) == ["//b.org/b.css", "https://c.org/c.png"]


def test_benchmarks_are_shown_as_they_were_measured(tmp_path):
    assert measured.make_pages(tmp_path) == {}
    rows = {
        "reference": {"wall": [9, 9], "cpu": [4.0, 6.0]},
        "ours": {"wall": [9, 9], "cpu": [2, 2]},
    }
    machine = {"device": "One CPU", "torch": "2.14.1", "cuda": "13.0", "python": "3.11.7"}
    items = {
        "an attack": Outcome(FINISHED, "python attack.py", 3.0, rows),
        "a step": Outcome(TOO_LONG, "python step.py", 9.0),
    }
    write_report(tmp_path, machine, items, "cpu")
    (page,) = measured.make_pages(tmp_path).values()
    assert "## One CPU, torch 2.14.1, Python 3.11.7\n" in page
    assert "| **Result** | an attack: 2.50 times |" in page
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| .+ \|$", page, re.MULTILINE)
    assert rows == ["Asked", "Result", "Command", "Machine, versions"]
    assert "`python attack.py`" in page
    assert "| ours | 2.50 (2.00 to 3.00), 2 runs |" in page, "processor time counts"
    assert "State: took too long. What was measured until then counts." in page
    write_report(tmp_path, machine, items, "gpu")
    assert "CUDA 13.0" in measured.make_pages(tmp_path)["results/benchmarks.md"]
