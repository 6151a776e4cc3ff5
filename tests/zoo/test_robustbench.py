"""RobustBench's leaderboards, from its description, in one table with our records."""

import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from robustray.cli import main
from robustray.models.libraries.leaderboards import load_robustbench, read_leaderboards

DESCRIPTION = """## Model Zoo
| not | a leaderboard |
### CIFAR-10

#### Linf, eps=8/255
| <sub>#</sub> | <sub>Model ID</sub> | <sub>Paper</sub> | <sub>Clean accuracy</sub> | \
<sub>Robust accuracy</sub> | <sub>Architecture</sub> | <sub>Venue</sub> |
|:---:|---|---|:---:|:---:|:---:|:---:|
| <sub>**1**</sub> | <sub><sup>**First2024_WRN**</sup></sub> | \
<sub>*[A Paper](https://example.org/1)*</sub> | <sub>93.68%</sub> | <sub>73.71%</sub> | \
<sub>WideResNet-94-16</sub> | <sub>ICML 2024</sub> |
|  <sub>**2**</sub>  | <sub><sup>**Second**</sup></sub> | <sub>No paper</sub> | <sub>N/A</sub> | \
<sub>1%</sub> | <sub>ResNet-18</sub> | <sub>-</sub> |
| a | broken | row |
#### Common Corruptions
| <sub>#</sub> | <sub>Model ID</sub> | <sub>Clean accuracy</sub> | <sub>Robust accuracy</sub> |
|---|---|---|---|
| <sub>1</sub> | <sub><sup>**First2024_WRN**</sup></sub> | 95% | 90.5% |
## FAQ
| <sub>#</sub> | <sub>Model ID</sub> |
| 1 | no network |
"""


def test_leaderboards_are_read():
    first, second, corrupted = read_leaderboards(DESCRIPTION)
    assert (first.name, first.data, first.threat) == (
        "robustbench:First2024_WRN", "cifar10", "linf 8/255",
    )  # fmt: skip
    assert first.published == {"clean": 93.68, "autoattack": 73.71}
    assert (first.paper, first.link, first.venue) == (
        "A Paper", "https://example.org/1", "ICML 2024",
    )  # fmt: skip
    assert second.published == {"autoattack": 1.0}
    assert (second.paper, second.link) == ("No paper", "")
    assert corrupted.published == {"clean": 95.0, "corruptions": 90.5}


@pytest.fixture
def described(tmp_path, monkeypatch):
    """Have a RobustBench installed that is its description alone."""
    place = tmp_path / "robustbench-9.9.dist-info"
    place.mkdir()
    head = "Metadata-Version: 2.1\nName: robustbench\nVersion: 9.9\n\n"
    (place / "METADATA").write_text(head + DESCRIPTION)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    load_robustbench.cache_clear()
    yield
    load_robustbench.cache_clear()


def test_both_are_in_one_table(described, capsys):
    assert main(["zoo", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "data", "threat", "network", "published,", "in", "percent"]
    shown = {line.split()[0]: line for line in lines}
    assert "clean 91.58, autoattack 65.79" in shown["wrn_a4-robustbench-500k"]
    assert sum(line.startswith("robustbench:First2024_WRN ") for line in lines) == 2
    assert shown["robustbench:Second"].split()[1:4] == ["cifar10", "linf", "8/255"]
    assert main(["zoo", "list", "robustbench:*"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_one_network_is_shown_with_all_its_leaderboards(described, capsys):
    assert main(["zoo", "show", "robustbench:First2024_WRN"]) == 0
    assert capsys.readouterr().out.count("id: First2024_WRN") == 2
    assert main(["zoo", "show", "robustbench:First2024"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["zoo", "fetch", "robustbench:Second"]) == 2
    assert "downloads its own weights" in capsys.readouterr().err


def test_without_the_package_our_records_stand_alone(monkeypatch, capsys):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("robustray.models.libraries.leaderboards.metadata", absent)
    load_robustbench.cache_clear()
    assert main(["zoo", "list"]) == 0
    out = capsys.readouterr().out
    assert "smoothing-cifar10-edm" in out
    assert "With the package robustbench installed" in out
    assert main(["zoo", "show", "robustbench:Standard"]) == 2
    assert "not installed" in capsys.readouterr().err
    load_robustbench.cache_clear()


def test_the_installed_leaderboards_are_whole():
    try:
        version("robustbench")
    except PackageNotFoundError:
        pytest.skip("the package robustbench is not installed")
    load_robustbench.cache_clear()
    records = load_robustbench()
    assert len({(r.id, r.data, r.threat) for r in records}) == len(records) > 150
    assert all(0 <= value <= 100 for r in records for value in r.published.values())
    assert {r.threat for r in records} == {"linf 8/255", "linf 4/255", "l2 0.5", "corruptions"}
    ours = {"Huang2022Revisiting_WRN-A4": (91.58, 65.79), "Bai2023Improving_edm": (95.23, 68.06)}
    found = {r.id: r for r in records if r.data == "cifar10" and r.threat == "linf 8/255"}
    for name, numbers in ours.items():
        assert tuple(found[name].published.values()) == numbers
