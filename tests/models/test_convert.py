"""Published files become safetensors, in the library and on the command line."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import safetensors.torch
import torch

from robustray.cli import main
from robustray.models import ModelError, WeightsError, create_model, find_model, load_weights
from robustray.models.registry import PublishedWeights
from robustray.models.weights.convert import convert_weights
from robustray.registry import MODELS

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
def known(monkeypatch, published):
    """The file as one of the catalogue's sets of weights."""
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    entry = find_model("preact_resnet")

    def register(sha256: str | None = digest) -> str:
        record = PublishedWeights(
            "mine", ("here",), "MIT", "cifar10", options=tuple(OPTIONS.items()), sha256=sha256
        )
        changed = dataclasses.replace(entry, weights=(record,))
        monkeypatch.setitem(MODELS._entries, "preact_resnet", changed)
        return digest

    return register


def test_a_known_digest_is_recognised_and_gives_the_options(tmp_path, published, known):
    known()
    done = convert_weights(published, tmp_path / "w", "preact_resnet", published="mine")
    assert done.known_as == ("preact_resnet: mine",)
    assert "preact_resnet: mine" in str(done)


def test_another_digest_than_the_catalogues_is_refused(tmp_path, published, known):
    known("0" * 64)
    with pytest.raises(WeightsError, match="not 0000"):
        convert_weights(published, tmp_path / "w", "preact_resnet", published="mine")
    assert not (tmp_path / "w").exists()


def test_unknown_sets_of_weights_list_the_known_ones(tmp_path, published):
    with pytest.raises(ModelError, match="Allowed: robustbench-500k"):
        convert_weights(published, tmp_path / "w", "wrn_a4", published="mine")
    with pytest.raises(ModelError, match="Allowed: none"):
        convert_weights(published, tmp_path / "w", "racl", published="mine")


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
        (["--published", "any"], "of a model of the catalogue"),
    ):
        assert main([*command, *more]) == 2
        assert words in capsys.readouterr().err
