"""Published files become safetensors, in the library and on the command line."""

from __future__ import annotations

import hashlib

import pytest
import safetensors.torch
import torch
import yaml

from robustray.cli import main
from robustray.models import create_model, load_weights
from robustray.models.weights.convert import convert_weights

OPTIONS = {"depths": [1, 1], "widths": [1, 1], "activations": "SiLU", "pre_process": True}


def small(seed: int = 0, **options) -> torch.nn.Module:
    torch.manual_seed(seed)
    return create_model("preact_resnet", **(OPTIONS | options)).eval()


@pytest.fixture
def published(tmp_path):
    """A file of baseline training, with a wrapper's prefix and RobustBench's constants."""
    state = {f"module.{key}": value for key, value in small(1).state_dict().items()}
    state["mu"] = torch.tensor((0.4914, 0.4822, 0.4465)).view(3, 1, 1)
    state["sigma"] = torch.tensor((0.2471, 0.2435, 0.2616)).view(3, 1, 1)
    content = {
        "epoch": 99,
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "alpha_optimizer_state_dict": None,
        "scheduler_state_dict": None,
        "ENV": {"best_pgd_acc": 0.5, "pgd_eval_history": [(50, 49.1)], "flops": 5080.9},
        "genotype": None,
    }
    torch.save(content, tmp_path / "arch_001_best.pth")
    return tmp_path / "arch_001_best.pth"


def test_conversion_keeps_every_value_and_reports_both_digests(tmp_path, published):
    output = tmp_path / "w.safetensors"
    done = convert_weights(published, output, "preact_resnet", options=OPTIONS)
    source, target = small(1), small(2)
    report = load_weights(target, output)
    assert report.format == "safetensors"
    assert report.renamed == {}
    assert all(
        torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items()
    )
    assert done.report.sha256 == hashlib.sha256(published.read_bytes()).hexdigest()
    assert done.sha256 == hashlib.sha256(output.read_bytes()).hexdigest() == report.sha256
    text = str(done)
    assert done.report.sha256 in text
    assert done.sha256 in text
    assert "mu, sigma" in text
    assert "module." in text


def test_values_take_the_networks_types(tmp_path):
    torch.save(small(1, pre_process=False).half().state_dict(), tmp_path / "w.pth")
    options = OPTIONS | {"pre_process": False}
    convert_weights(tmp_path / "w.pth", tmp_path / "w", "preact_resnet", options=options)
    types = {t.dtype for t in safetensors.torch.load_file(tmp_path / "w").values()}
    assert types == {torch.float32, torch.int64}


@pytest.fixture
def convert(monkeypatch, tmp_path, published):
    """Convert the file as one of the zoo's sets of weights, which has a digest."""

    def convert(sha256: str) -> int:
        record = {"name": "preact_resnet-mine", "description": "-", "system": "robust-resnets"}
        record |= {"model": "preact_resnet", "options": OPTIONS, "licence": "MIT", "paper": "-"}
        file = {"name": "w.pth", "sources": ["https://example.org/w"], "sha256": sha256}
        text = yaml.safe_dump(record | {"data": "cifar10", "files": [file]})
        (tmp_path / "mine.yaml").write_text(text)
        monkeypatch.setenv("ROBUSTRAY_ZOO_RECORDS", str(tmp_path))
        command = ["weights", "convert", str(published), "--model", "preact_resnet"]
        return main([*command, "--published", "mine", "--output", str(tmp_path / "w")])

    return convert


def test_a_known_digest_is_recognised_and_gives_the_options(published, convert, capsys):
    assert convert(hashlib.sha256(published.read_bytes()).hexdigest()) == 0
    assert "known as   preact_resnet-mine" in capsys.readouterr().out


def test_another_digest_than_the_zoos_is_refused(tmp_path, convert, capsys):
    assert convert("0" * 64) == 2
    assert "not 0000" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(("model", "known"), [("wrn_a4", "robustbench-500k"), ("racl", "none")])
def test_unknown_sets_of_weights_list_the_known_ones(tmp_path, published, capsys, model, known):
    assert run(published, tmp_path / "w", "--model", model, "--published", "mine") == 2
    assert f"Allowed: {known}" in capsys.readouterr().err


def run(published, output, *more: str) -> int:
    options = ["depths=[1, 1]", "widths=[1, 1]", "activations=SiLU", "pre_process=true"]
    sets = [part for option in options for part in ("--set", option)]
    command = ["weights", "convert", str(published), "--model", "preact_resnet"]
    return main([*command, "--output", str(output), *sets, *more])


def test_the_command_converts_and_prints_its_report(tmp_path, published, capsys):
    output = tmp_path / "w.safetensors"
    assert run(published, output) == 0
    out = capsys.readouterr().out
    assert hashlib.sha256(output.read_bytes()).hexdigest() in out
    assert "as model_state_dict" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "num_classes=100"], "mismatched: fc.weight"),
        (["--set", "pre_process=false"], "standardises the input"),
        (["--set", "depht=3"], "did you mean 'depths'"),
        (["--set", "depths"], "not of the form option=value"),
        (["--set", "depths=["], "not valid YAML"),
        (["--format", "bare"], "not of the format bare"),
        (["--format", "pickle"], "unknown format of weights"),
        (["--sha256", "00"], "not 00"),
        (["--published", "any"], "unknown set of weights"),
        (["--model", "rrn_a9"], "unknown model 'rrn_a9'"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(tmp_path, published, capsys, more, message):
    assert run(published, tmp_path / "w", *more) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "w").exists()


def test_files_that_are_not_there(tmp_path, published, capsys):
    assert run(tmp_path / "nothing.pth", tmp_path / "w") == 2
    assert "nothing.pth" in capsys.readouterr().err
    assert run(published, tmp_path / "no" / "w") == 2
    assert "no such folder" in capsys.readouterr().err


def test_models_are_listed_and_described(capsys):
    assert main(["models", "wrn_*_r"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["models", "wrn_a4"]) == 0
    out = capsys.readouterr().out
    for words in ("arXiv:2212.11005", "147M", "pgd-20 58.76", "pre_process=True", "licence MIT"):
        assert words in out
    assert main(["models", "nothing"]) == 2
    assert "unknown model" in capsys.readouterr().err


def make(width: int = 4) -> torch.nn.Module:
    """A user's own network."""
    return torch.nn.Linear(width, 2)


def test_a_users_network_is_converted(tmp_path, capsys):
    source = make()
    torch.save({"net": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "w")
    command = ["weights", "convert", str(tmp_path / "w"), "--output", str(tmp_path / "out")]
    command += ["--model", "tests.models.test_convert:make"]
    assert main(command) == 0
    target = make()
    load_weights(target, tmp_path / "out")
    assert torch.equal(target.weight, source.weight)
    for more, words in (
        (["--set", "width=5"], "1 mismatched: weight"),
        (["--set", "depth=5"], "unexpected keyword argument 'depth'"),
        (["--published", "any"], "unknown set of weights"),
    ):
        assert main([*command, *more]) == 2
        assert words in capsys.readouterr().err
