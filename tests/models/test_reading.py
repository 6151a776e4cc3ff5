"""Files with objects in them: refused, or read without running any of it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustray.cli import main
from robustray.models import WeightsError, convert_weights, create_model, load_weights
from robustray.models.weights.reading import read_file

OPTIONS = {"depths": (1,), "widths": (1,)}


class Schedule:
    """A schedule as older PyTorch keeps it: its state holds a method, and so the optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.anneal = optimizer, self.cosine

    def cosine(self) -> float:
        return 0.5


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def advanced(path: Path, *more: object) -> nn.Module:
    """Write what advanced training writes, and return its averaged model."""
    torch.manual_seed(0)
    model = create_model("preact_resnet", **OPTIONS)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 400,
        "model_state_dict": model.state_dict(),
        "unaveraged_model_state_dict": {f"module.{k}": v for k, v in model.state_dict().items()},
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": vars(Schedule(optimizer)),
        "best_val_acc": [torch.tensor(0.9).numpy()[()], 0.6],
        "more": more,
    }
    torch.save(content, path)
    return model


def test_objects_are_refused_by_name_and_the_way_out_is_told(tmp_path):
    advanced(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"objects other than tensors.*--drop-objects") as caught:
        load_weights(create_model("preact_resnet", **OPTIONS), tmp_path / "w.pt")
    assert "test_reading.Schedule" in str(caught.value)


def test_advanced_training_without_its_objects(tmp_path):
    source = advanced(tmp_path / "w.pt")
    done = convert_weights(
        tmp_path / "w.pt", tmp_path / "w", "preact_resnet", drop_objects=True, options=OPTIONS
    )
    target = create_model("preact_resnet", **OPTIONS)
    load_weights(target, tmp_path / "w")
    states = zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
    assert any(name.endswith("test_reading.Schedule") for name in done.report.dropped)
    assert "left out   objects of" in str(done)


def test_plain_files_drop_nothing(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, tmp_path / "w.pt")
    assert read_file(tmp_path / "w.pt", drop_objects=True).dropped == ()


def test_code_in_a_file_is_never_run(tmp_path):
    """It becomes an inert object, like any other."""
    advanced(tmp_path / "w.pt", Evil(tmp_path / "ran"))
    content = read_file(tmp_path / "w.pt", drop_objects=True)
    assert not (tmp_path / "ran").exists()
    assert any("open" in name for name in content.dropped)
    assert type(content.values["more"][0]).__name__ == "Inert"
    with pytest.raises(WeightsError, match="objects other than tensors"):
        read_file(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_objects_in_files_of_old_pytorch_are_refused_or_left_out(tmp_path):
    content = {"state_dict": {"a": torch.ones(2)}, "more": Evil(tmp_path / "ran")}
    torch.save(content, tmp_path / "w", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="objects other than tensors"):
        read_file(tmp_path / "w")
    found = read_file(tmp_path / "w", drop_objects=True)
    assert found.values["state_dict"]["a"].tolist() == [1, 1]
    assert not (tmp_path / "ran").exists()


def test_the_command_says_what_it_left_out(tmp_path, capsys):
    advanced(tmp_path / "w.pt")
    command = ["weights", "convert", str(tmp_path / "w.pt"), "--model", "preact_resnet"]
    command += ["--output", str(tmp_path / "w"), "--set", "depths=[1]", "--set", "widths=[1]"]
    assert main(command) == 2
    assert "--drop-objects" in capsys.readouterr().err
    assert main([*command, "--drop-objects"]) == 0
    assert "Schedule" in capsys.readouterr().out


PAGE = b"<!DOCTYPE html><html><head><title>Quota  exceeded</title></head></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty$"),
        (PAGE, r"a web page \('Quota exceeded'\)"),
        (LFS, "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        (gzip.compress(b"1", mtime=0), "unpack it first"),
        (b"PK\5\6" + bytes(18), "holds nothing"),
        (b"\x80\x02.", "takes more from its stack"),
        (b"some text", "begins with b'some text'"),
        (b"\x02" + bytes(7) + b"{}", "it holds nothing"),
    ],
)
@pytest.mark.parametrize("name", ["w.pt", "w.npz", "w.safetensors"])
def test_what_is_no_file_of_weights_is_told(tmp_path, content, words, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        load_weights(create_model("preact_resnet", **OPTIONS), tmp_path / name)
    assert not str(caught.value).rstrip().endswith(":")


def test_a_folder_is_told_with_what_it_holds(tmp_path):
    (tmp_path / "best.pt").touch()
    with pytest.raises(WeightsError, match=r"is a folder; name a file in it \(best\.pt\)"):
        load_weights(create_model("preact_resnet", **OPTIONS), tmp_path)


def test_numbers_of_numpy_are_no_foreign_objects(tmp_path):
    best = np.float64(0.5)
    torch.save({"best": best, "curve": np.arange(3.0)}, tmp_path / "w.pt")
    content = read_file(tmp_path / "w.pt")
    assert content.values["best"] == 0.5
    assert content.dropped == ()


FOREIGN = {
    "texts": lambda: np.array(["cat", "dog"]),
    "complex": lambda: np.ones(2, complex),
    "objects": lambda: np.array([{"a": 1}, None], object),
    "big-endian": lambda: np.ones(2, ">f4"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("legacy", [False, True])
def test_arrays_that_are_no_weights_are_left_out_on_request(tmp_path, name, legacy):
    content = {"state_dict": {"a": torch.ones(2)}, "more": FOREIGN[name]()}
    torch.save(content, tmp_path / "w", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"objects other than tensors.*--drop-objects"):
        read_file(tmp_path / "w")
    found = read_file(tmp_path / "w", drop_objects=True)
    assert found.values["state_dict"]["a"].tolist() == [1, 1]
    assert found.dropped


def test_arrays_are_read_in_either_order(tmp_path):
    rows = np.arange(6.0).reshape(2, 3)
    torch.save({"rows": np.asfortranarray(rows)}, tmp_path / "w")
    assert np.array_equal(read_file(tmp_path / "w").values["rows"].value, rows)


def test_a_whole_module_is_no_state_dict(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w")
    with pytest.raises(WeightsError, match=r"an object \(.*Linear.*save model\.state_dict"):
        read_file(tmp_path / "w", drop_objects=True)
