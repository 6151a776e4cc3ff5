"""The records: whole, consistent with the catalogue, and shown on the command line."""

import pytest

from robustray.cli import main
from robustray.errors import ManifestError
from robustray.models import find_model, list_models
from robustray.zoo import load_records

RECORDS = load_records()


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_names_a_model_that_takes_its_options(name):
    record = RECORDS[name]
    if record.model is not None:
        assert set(record.options) <= set(find_model(record.model).options)
    assert all(file.sources for file in record.files)


def test_every_set_of_weights_of_the_catalogue_has_its_record():
    for model in list_models():
        for weights in find_model(model).weights:
            record = RECORDS[f"{model}-{weights.name}".lower()]
            assert record.model == model
            assert record.published == dict(weights.numbers)
            assert record.files[0].sha256 == weights.sha256
            assert record.licence == weights.licence
            (source,) = weights.sources
            found = record.files[0].sources[0]
            assert source.rpartition("=")[2] == found[6:] or found == f"page:{source}"


def test_all_four_systems_are_there():
    assert {record.system for record in RECORDS.values()} == {
        "robust-resnets", "robust-model-zoo", "adaptive-smoothing", "gradient-direction",
    }  # fmt: skip
    composites = [r for r in RECORDS.values() if r.system == "adaptive-smoothing"]
    assert len(composites) == 6
    for record in composites:
        assert [file.role for file in record.files] == ["accurate", "robust", "mixing"]


def test_the_command_line_lists_and_shows(capsys):
    assert main(["zoo", "list", "wrn_a4*"]) == 0
    assert "wrn_a4-robustbench-500k" in capsys.readouterr().out
    assert main(["zoo", "show", "wrn_a4-robustbench-500k"]) == 0
    assert "drive:1okHk4XPgunmqHG3alXfVF84qRwlu6Oqe" in capsys.readouterr().out
    assert main(["zoo", "show", "wrn_a4"]) == 2
    assert "wrn_a4-robustbench-500k" in capsys.readouterr().err


def test_missing_files_are_told(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTRAY_DATA", str(tmp_path))
    assert main(["zoo", "verify", "wrn_a4-robustbench-500k"]) == 1
    assert "missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sources": ["http://example.org/x"]}, "plain_http"),
        ({"sha256": "abc"}, "files.0.sha256"),
        ({"other": 1}, "files.0.other"),
        ({"name": "../x"}, "files.0.name"),
    ],
)
def test_wrong_records_are_refused(tmp_path, change, words):
    file = {"name": "w", "sources": ["https://example.org/x"]} | change
    fields = {"name": "a", "description": "-", "system": "robust-resnets", "data": "-"}
    lines = [f"{k}: '{v}'" for k, v in {**fields, "licence": "-", "paper": "-"}.items()]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, f"files: [{file}]"]))
    with pytest.raises(ManifestError, match=words):
        load_records(tmp_path)
