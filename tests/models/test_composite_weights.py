"""Published layouts of mixed classifiers and of their parts, written small and read again."""

from typing import Any

import numpy as np
import pytest
import torch

from robustray.cli import main
from robustray.models import WeightsError, create_model, load_weights
from robustray.models.weights.assemble import load_composite

X = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
THIN = {"name": "cifar_resnet18", "width": 4, "depths": (1, 1, 1, 1)}


def composite(seed=0, **options):
    torch.manual_seed(seed)
    model = create_model("adaptive_smoothing", accurate=THIN, robust=THIN, **options)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_()
    return model.eval()


@pytest.fixture
def parts(tmp_path):
    """A composite, and the files of its parts as published."""
    model: Any = composite(seed=1)
    model.bn.running_mean.fill_(0.25)
    accurate = {f"module.{k}": v for k, v in model.models[0].state_dict().items()}
    robust = {f"module.0.{k}": v for k, v in model.models[1].state_dict().items()}
    files = [tmp_path / name for name in ("a.pt", "r.pt", "m.pt")]
    torch.save({"step": 7, "model": accurate, "optim": {}}, files[0])
    torch.save({"model_state_dict": robust, "unaveraged_model_state_dict": {}}, files[1])
    mixing = {"model": model.policy_net.state_dict(), "bn": model.bn.state_dict(), "ep": 2}
    torch.save(mixing, files[2])
    return model, files


def test_three_published_files_are_one_composite(parts):
    model, files = parts
    other = composite()
    assert not torch.allclose(other(X), model(X), atol=1e-3)
    load_composite(other, *files)
    assert torch.equal(other(X), model(X))


@pytest.mark.parametrize("wrapper", ["_comp_model.", "comp_model.module.", "both"])
def test_the_doubled_layout_of_a_whole_composite(parts, tmp_path, wrapper):
    model, _ = parts
    prefixes = ["comp_model.module.", "_comp_model."] if wrapper == "both" else [wrapper]
    state = {p + k: v for p in prefixes for k, v in model.state_dict().items()}
    torch.save(state, tmp_path / "whole.pt")
    other = composite()
    report = load_weights(other, tmp_path / "whole.pt")
    assert report.format == "composite"
    assert torch.equal(other(X), model(X))


def test_two_halves_that_differ_are_refused(parts, tmp_path):
    model, _ = parts
    state = {f"comp_model.{k}": v for k, v in model.state_dict().items()}
    state |= {f"_comp_model.{k}": v + 1 for k, v in model.state_dict().items()}
    torch.save(state, tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match="different values"):
        load_weights(composite(), tmp_path / "whole.pt")


def test_older_mixing_files_have_the_normalisation_inside(parts, tmp_path):
    model, files = parts
    inside = dict(model.policy_net.state_dict())
    inside |= {f"bn.{k}": v for k, v in model.bn.state_dict().items()}
    torch.save({"model": inside, "gamma_scale": 3.0, "gamma_bias": 0.5}, files[2])
    other: Any = composite()
    load_composite(other, *files)
    assert (other.constants.gamma_scale, other.constants.gamma_bias) == (3.0, 0.5)
    assert torch.equal(other.with_constants(gamma_scale=1.0, gamma_bias=0.0)(X), model(X))


def test_a_mixing_file_of_another_network_names_what_differs(parts):
    _, files = parts
    torch.save({"model": {"linear.weight": torch.zeros(1, 8)}, "bn": {}}, files[2])
    with pytest.raises(WeightsError, match=r"m\.pt does not fit.*policy_net\.layers"):
        load_composite(composite(), *files)


def test_arrays_of_bit_are_read_and_transposed(tmp_path):
    torch.manual_seed(0)
    model = create_model("bit_r50x1")
    arrays = {}
    for name, tensor in model.state_dict().items():
        value = tensor.numpy()
        arrays[_bit_name(name)] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
    np.savez(tmp_path / "bit.npz", **arrays)
    other = create_model("bit_r50x1")
    assert load_weights(other, tmp_path / "bit.npz").format == "bit"
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(WeightsError, match="other things than arrays"):
        load_weights(create_model("cifar_resnet18", width=4), tmp_path / "bad.npz")


def _bit_name(name):
    """Write our name as BiT's release does."""
    outside = {
        "root.conv.weight": "root_block/standardized_conv2d/kernel",
        "head.gn.weight": "group_norm/gamma", "head.gn.bias": "group_norm/beta",
        "head.conv.weight": "head/conv2d/kernel", "head.conv.bias": "head/conv2d/bias",
    }  # fmt: skip
    if name in outside:
        return f"resnet/{outside[name]}"
    _, block, unit, layer, kind = name.split(".")
    place = f"resnet/{block}/{unit}/"
    if layer == "downsample":
        return place + "a/proj/standardized_conv2d/kernel"
    letter = "abc"[int(layer[-1]) - 1]
    if layer.startswith("conv"):
        return f"{place}{letter}/standardized_conv2d/kernel"
    return f"{place}{letter}/group_norm/{'gamma' if kind == 'weight' else 'beta'}"


def test_parts_become_one_file_from_the_shell(parts, tmp_path, capsys):
    model, files = parts
    out = tmp_path / "all.safetensors"
    thin = "{name: cifar_resnet18, width: 4, depths: [1, 1, 1, 1]}"
    arguments = ["weights", "assemble", "--output", str(out)]
    for role, file in zip(("accurate", "robust", "mixing"), files, strict=True):
        arguments += [f"--{role}", str(file)]
    sets = [f"accurate={thin}", f"robust={thin}", "constants={rob_scale: 0.5}"]
    assert main(arguments + [part for one in sets for part in ("--set", one)]) == 0
    assert "rob_scale=0.5" in capsys.readouterr().out
    other: Any = composite()
    load_weights(other, out)
    assert torch.equal(other.with_constants(rob_scale=1.0)(X), model(X))


def test_a_mixture_without_its_mixing_file_is_refused(parts):
    with pytest.raises(WeightsError, match="belong together"):
        load_composite(composite(), *parts[1][:2])


def test_a_folder_of_published_files_names_what_it_lacks(tmp_path, capsys):
    code = main(["weights", "assemble", "--folder", str(tmp_path), "--set", "preset=cifar10-edm",
                 "--output", str(tmp_path / "x.safetensors")])  # fmt: skip
    assert code == 2
    assert "cifar10_bit_rn152.tar" in capsys.readouterr().err
