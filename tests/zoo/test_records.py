"""The records: whole, consistent with the catalogue, and shown on the command line."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from robustray.cli import main
from robustray.cli.zoo import weights_in
from robustray.errors import ManifestError, UserError
from robustray.models import create_model, list_models, load_weights
from robustray.zoo import load_records, records_of

RECORDS = load_records()
REFERENCE = Path(__file__).parents[1] / "models/reference/model_1"


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_names_a_model_that_takes_its_options(name):
    record = RECORDS[name]
    if record.model is not None:
        with torch.device("meta"):
            create_model(record.model, **record.options)
    assert all(file.sources for file in record.files)


def test_the_sets_of_weights_of_the_scaling_study_and_the_quantised_models_are_there():
    found = {
        (model, name): r.published
        for model in list_models()
        for name, r in records_of(model).items()
    }
    assert {
        key: tuple(numbers.values())
        for key, numbers in found.items()
        if key[0] != "adaptive_smoothing"
    } == {
        ("preact_resnet", "table-1-d4-w10"): (57.70, 54.71),
        ("preact_resnet", "table-1-d5-w12"): (58.46, 55.56),
        ("preact_resnet", "table-1-d7-w14"): (59.41, 56.62),
        ("preact_resnet", "table-1-d11-w16"): (60.48, 57.78),
        ("preact_resnet", "table-2-5g-depth"): (56.05, 53.14),
        ("preact_resnet", "table-2-5g-width"): (56.89, 53.87),
        ("preact_resnet", "table-2-10g-depth"): (56.42, 53.91),
        ("preact_resnet", "table-2-10g-width"): (57.06, 54.29),
        ("preact_resnet", "table-2-20g-depth"): (57.11, 54.48),
        ("preact_resnet", "table-2-20g-width"): (58.02, 55.34),
        ("preact_resnet", "table-2-40g-depth"): (57.90, 55.79),
        ("preact_resnet", "table-2-40g-width"): (58.48, 56.15),
        ("wrn_a4", "robustbench-500k"): (91.58, 65.79),
        ("rrn_a1", "baidu-500k"): (63.70,),
        ("wrn_34_r", "robustbench-500k"): (90.56, 61.56),
        ("wrn_34_r", "robustbench-500k-ema"): (91.23, 62.54),
        ("robust_model_zoo_1", "tf1"): (77.10, 62.20, 53.30),
        ("robust_model_zoo_2", "tf1"): (69.30, 49.70, 43.10),
    }


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


@pytest.mark.parametrize("inner", ["", "model/"])
def test_a_tensorflow_checkpoint_in_an_archive_put_there_by_hand_is_imported(
    tmp_path, monkeypatch, capsys, inner
):
    fields = RECORDS["robust_model_zoo_1-tf1"].model_dump(mode="json", exclude_none=True)
    fields["files"][0]["sources"] = [s for s in fields["files"][0]["sources"] if "page:" in s]
    records = tmp_path / "records"
    records.mkdir()
    (records / "thin.yaml").write_text(yaml.safe_dump(fields | {"options": {"width": 4}}))
    monkeypatch.setenv("ROBUSTRAY_ZOO_RECORDS", str(records))
    monkeypatch.setenv("ROBUSTRAY_DATA", str(tmp_path / "data"))
    command = ["zoo", "import", "robust_model_zoo_1-tf1", "--output", f"{tmp_path}/w.safetensors"]
    assert main(command) == 2
    place = tmp_path / "data/zoo/robust_model_zoo_1-tf1/model_1.zip"
    assert f"put it at {place}" in capsys.readouterr().err
    with zipfile.ZipFile(place, "w") as file:
        for path in REFERENCE.iterdir():
            file.write(path, inner + path.name)
    assert main(command) == 0
    assert "123 tensors" in capsys.readouterr().out
    model, expected = (create_model("robust_model_zoo_1", width=4) for _ in range(2))
    load_weights(model, tmp_path / "w.safetensors")
    load_weights(expected, REFERENCE)
    for name, tensor in expected.state_dict().items():
        assert tensor.equal(model.state_dict()[name]), name


def test_an_archive_with_two_checkpoints_is_a_question(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/one.index", "two.index"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"2 checkpoints .*a/one\.index, two\.index"):
        weights_in(tmp_path)


def test_the_three_files_of_a_composite_become_one(tmp_path, monkeypatch, capsys):
    fields = RECORDS["smoothing-cifar10-edm"].model_dump(mode="json", exclude_none=True)
    thin = {"name": "cifar_resnet18", "width": 4, "depths": [1, 1, 1, 1]}
    fields["options"] = {"preset": "cifar10-edm", "accurate": thin, "robust": thin}
    for file in fields["files"]:
        file["sources"] = ["page:https://example.org/"]
    (tmp_path / "records").mkdir()
    (tmp_path / "records/thin.yaml").write_text(yaml.safe_dump(fields))
    monkeypatch.setenv("ROBUSTRAY_ZOO_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("ROBUSTRAY_DATA", str(tmp_path / "data"))
    model: Any = create_model("adaptive_smoothing", **fields["options"]).eval()
    folder = tmp_path / "data/zoo/smoothing-cifar10-edm"
    folder.mkdir(parents=True)
    for base, file in zip(model.models, fields["files"], strict=False):
        torch.save(base.state_dict(), folder / file["name"])
    mixing = {"model": model.policy_net.state_dict(), "bn": model.bn.state_dict()}
    torch.save(mixing, folder / fields["files"][2]["name"])
    command = ["zoo", "import", "smoothing-cifar10-edm", "--output", f"{tmp_path}/c.safetensors"]
    assert main(command) == 0
    assert "rob_scale=0.3" in capsys.readouterr().out
    other = create_model("adaptive_smoothing", accurate=thin, robust=thin).eval()
    load_weights(other, tmp_path / "c.safetensors")
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(other(x), model(x))
