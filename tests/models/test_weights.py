from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustray.models import WeightsError, create_model, load_weights, save_weights


def small(seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    given = {"depths": (1, 1), "widths": 1, "block": ("basic", "robust"), **options}
    model = create_model("preact_resnet", **given)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
            else:
                tensor.fill_(seed)
    return model


def equal(a: nn.Module, b: nn.Module) -> bool:
    states = a.state_dict(), b.state_dict()
    return list(states[0]) == list(states[1]) and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


def test_round_trip(tmp_path):
    source, target = small(1), small(2)
    save_weights(source, tmp_path / "w.safetensors")
    report = load_weights(target, tmp_path / "w.safetensors")
    assert equal(source, target)
    assert report.matched == tuple(source.state_dict())
    assert report.missing == report.unexpected == report.mismatched == ()
    assert report.renamed == {}
    assert report.format == "safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_equal_weights_make_equal_bytes(tmp_path):
    for name in ("a", "b"):
        model: Any = small(3)
        if name == "b":
            model = model.to(memory_format=torch.channels_last)
        save_weights(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_saving_replaces_a_file_and_needs_its_folder(tmp_path):
    path = tmp_path / "w"
    path.write_text("older")
    save_weights(small(1), path)
    assert load_weights(small(), path).format == "safetensors"
    with pytest.raises(FileNotFoundError, match="no such folder"):
        save_weights(small(), tmp_path / "nowhere" / "w")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("layout", ["bare", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("given", ["auto", "named"])
def test_published_layouts(tmp_path, layout, prefix, legacy, given):
    source, target = small(1), small(2)
    state = {prefix + key: value for key, value in source.state_dict().items()}
    content = state if layout == "bare" else {layout: state, "epoch": 99, "ENV": {"acc": [1.0]}}
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    report = load_weights(target, path, format="auto" if given == "auto" else layout)
    assert equal(source, target)
    assert report.format == layout
    assert report.renamed == ({prefix + key: key for key in source.state_dict()} if prefix else {})


def test_the_averaged_weights_are_taken_where_both_are_stored(tmp_path):
    averaged, raw, target = small(1), small(2), small(3)
    content = {
        "model_state_dict": averaged.state_dict(),
        "unaveraged_model_state_dict": {f"module.{k}": v for k, v in raw.state_dict().items()},
    }
    torch.save(content, tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt")
    assert equal(averaged, target)


@pytest.mark.parametrize("format", ["unaveraged", "model_state_dict"])
def test_averaged_or_raw_weights_by_name(tmp_path, format):
    averaged, raw, target = small(1), small(2), small(3)
    content = {
        "epoch": 400,
        "model_state_dict": averaged.state_dict(),
        "unaveraged_model_state_dict": {f"module.{k}": v for k, v in raw.state_dict().items()},
        "best_val_acc": [0.9, 0.6],
    }
    torch.save(content, tmp_path / "w.pt")
    assert load_weights(target, tmp_path / "w.pt", format).format == format
    assert equal(raw if format == "unaveraged" else averaged, target)


def test_raw_weights_are_never_taken_unasked(tmp_path):
    content = {"unaveraged_model_state_dict": small(1).state_dict(), "model_state_dict": {}}
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="not of the format"):
        load_weights(small(), tmp_path / "w.pt")


def test_the_digest_is_reported_and_checked(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(small(1).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_weights(small(2), path).sha256 == digest
    assert load_weights(small(2), path, sha256=digest.upper()).sha256 == digest
    target, untouched = small(2), small(2)
    with pytest.raises(WeightsError, match=f"is {digest}, not {'0' * 64}"):
        load_weights(target, path, sha256="0" * 64)
    assert equal(target, untouched)


def test_a_model_whose_own_names_look_like_a_wrapper(tmp_path):
    def wrapper(seed):
        model = nn.Module()
        model.module = small(seed)
        return model

    source, target = wrapper(1), wrapper(2)
    save_weights(source, tmp_path / "w")
    assert load_weights(target, tmp_path / "w").renamed == {}
    assert equal(source, target)


def test_wrappers_are_looked_through(tmp_path):
    source, target = small(1), small(2)
    save_weights(nn.DataParallel(source), tmp_path / "w")
    load_weights(torch.compile(target, backend="eager"), tmp_path / "w")
    assert equal(source, target)


def test_lower_precision_is_cast(tmp_path):
    source, target = small(1), small(2)
    save_weights(source.bfloat16(), tmp_path / "w")
    load_weights(target, tmp_path / "w")
    assert {p.dtype for p in target.parameters()} == {torch.float32}
    assert equal(source.float(), target)


def altered(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    state = dict(state)
    if how == "missing":
        del state["fc.bias"]
    elif how == "unexpected":
        state["se.extra"] = torch.zeros(1)
    elif how == "mismatched":
        state["fc.weight"] = torch.zeros(11, state["fc.weight"].shape[1])
    elif how == "twice":
        state["module.fc.bias"] = torch.zeros(10)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"1 missing: fc\.bias"),
        ("unexpected", r"1 unexpected: se\.extra"),
        ("mismatched", r"1 mismatched: fc\.weight: \(11, 128\) in the file, \(10, 128\) here"),
        ("twice", r"1 unexpected: module\.fc\.bias"),
    ],
)
def test_what_does_not_fit_is_reported_and_changes_nothing(tmp_path, how, message):
    target, untouched = small(2), small(2)
    torch.save(altered(small(1).state_dict(), how), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message):
        load_weights(target, tmp_path / "w.pth")
    assert equal(target, untouched)


def test_the_report_of_another_model_stays_readable(tmp_path):
    save_weights(small(), tmp_path / "w")
    with pytest.raises(WeightsError) as caught:
        load_weights(create_model("preact_resnet", depths=(3, 3), widths=1), tmp_path / "w")
    assert len(str(caught.value)) < 2000
    assert "more" in str(caught.value)


def damaged(tmp_path: Path, container: str, share: float) -> Path:
    path = tmp_path / "w"
    if container == "safetensors":
        save_weights(small(), path)
    else:
        torch.save(small().state_dict(), path, _use_new_zipfile_serialization=container == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize("container", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9999])
def test_truncated_files(tmp_path, container, share):
    with pytest.raises(WeightsError, match="damaged"):
        load_weights(small(), damaged(tmp_path, container, share))


@pytest.mark.parametrize("container", ["safetensors", "zip", "legacy"])
def test_flipped_bytes_are_an_error_of_ours_or_no_error(tmp_path, container):
    """Where the container has no checksum, a flipped weight can't be told from a weight."""
    path = damaged(tmp_path, container, 1)
    content = path.read_bytes()
    model, refused = small(), 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        spot = int(torch.randint(0, 2000 if seed % 2 else len(content), (1,), generator=generator))
        path.write_bytes(content[:spot] + bytes([content[spot] ^ 0x55]) + content[spot + 1 :])
        try:
            load_weights(model, path)
        except WeightsError:
            refused += 1
    assert refused


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\0" * 64, b"x"])
def test_files_of_something_else(tmp_path, content):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        load_weights(small(), tmp_path / "w")


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": small().state_dict(), "extra": Evil()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="objects other than tensors"):
        load_weights(small(), tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, {"state_dict": {"a": 1}}])
def test_pickles_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"not a state dict|not of the format"):
        load_weights(small(), tmp_path / "w.pth")


def test_format_is_checked(tmp_path):
    save_weights(small(), tmp_path / "w")
    with pytest.raises(WeightsError, match="not of the format bare"):
        load_weights(small(), tmp_path / "w", format="bare")
    with pytest.raises(ValueError, match="Allowed: auto, safetensors"):
        load_weights(small(), tmp_path / "w", format="keras")


def test_missing_file_and_meta_model(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_weights(small(), tmp_path / "nothing")
    with torch.device("meta"):
        model = create_model("preact_resnet", depths=(1,), widths=1)
    with pytest.raises(WeightsError, match="meta device"):
        save_weights(model, tmp_path / "w")
