"""Configuration files of two studies become manifests that say what is odd about them."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from robustray.cli import main
from robustray.errors import ManifestError
from robustray.manifest import Manifest, dump_manifest, load_manifest, manifest_hash
from robustray.models import create_model
from robustray.smoothing import Composite
from robustray.zoo.configs.importing import import_config

ADVANCED = Path(__file__).parents[2] / "manifests/training/advanced_trades_500k.yaml"
# Depths, channels, parameters with basic blocks and with robust ones, for 10 classes.
SIZES = {
    "A1": ((14, 14, 7), (16, 80, 224, 192), 18_707_930, 19_222_738),
    "A2": ((17, 17, 8), (16, 112, 288, 256), 38_323_482, 39_033_982),
    "A3": ((22, 22, 11), (16, 128, 352, 320), 75_302_490, 75_856_698),
    "A4": ((27, 28, 13), (16, 160, 448, 384), 147_291_738, 147_262_458),
}
FOLDERS = ("CIFAR10", "CIFAR100", "Advanced_CIFAR10")
ALL = [(f, k, s) for f, k, s in product(FOLDERS, ("WRN", "RobustResNet"), SIZES)]


def published(folder: str, kind: str, size: str) -> dict[str, Any]:
    """Return what one of the 24 files says."""
    depths, channels, *_ = SIZES[size]
    classes, advanced = (100 if folder == "CIFAR100" else 10), folder.startswith("Advanced")
    block = "robust_res_block" if kind == "RobustResNet" else "basic_block"
    model = {
        "name": "PreActResNet",
        "channel_configs": list(channels),
        "depth_configs": list(depths),
        "drop_rate_config": [0.0] * 3,
        "num_classes": classes,
        "stride_config": [1, 2, 2],
        "zero_init_residual": False,
        "block_types": [block] * 3,
        "activations": ["SiLU" if advanced else "ReLU"] * 3,
        "kernel_size_configs": [3] * 3,
        "normalizations": ["BatchNorm"] * 3,
    }
    if advanced:
        return {"model": model}
    return {
        "num_classes": classes, "epochs": 100, "grad_clip": 5.0, "log_frequency": 100,
        "model": model,
        "criterion": {"name": "TradesLoss", "epsilon": 0.03137254901960784, "perturb_steps": 10,
                      "step_size": 0.00784313725490196},
        "dataset": {"name": "DatasetGenerator", "train_batch_size": 128, "eval_batch_size": 128,
                    "num_of_workers": 8, "dataset_type": folder, "data_path": "/data/someone"},
        "optimizer": {"name": "SGD", "lr": 0.1, "weight_decay": 0.0002, "momentum": 0.9},
        "scheduler": {"name": "MultiStepLR", "milestones": [75, 90, 100], "gamma": 0.1},
    }  # fmt: skip


def smoothing(**changes: Any) -> str:
    """Return the text of a file of adaptive smoothing; changes are "section.key": value."""
    content: dict[str, Any] = {
        "seed": 20220304,
        "model_load_path": {"std": "Base/cifar10_bit_rn152.tar",
                            "rob": "Base/cifar10_linf_edm_wrn70-16.pt",
                            "comp": "CompModel/V4/epoch_2_ba_1248.pt"},
        "log_dir": "YOUR_MODEL_ROOT_DIR",
        "log_path": "CompModel/V4",
        "forward_settings": {"std_model_type": "rn152", "rob_model_type": "wrn7016_silu",
                             "std_model_scale": 1.2, "rob_model_scale": 0.5,
                             "in_planes": "(512, 256)", "gamma": 2.5, "use_policy": True,
                             "policy_graph": True, "pn_version": 4, "ema_decay": 0.95,
                             "alpha_scale": 0.15, "alpha_bias": 0.84, "parallel": True},
        "dataset_settings": {"name": "CIFAR-10", "train_with_test": False, "train_shuffle": True,
                             "path": "data", "pa_path": "None", "gamma_0": "None", "blocks": 5},
        "training_settings": {"epochs": 3, "batch_size_train_per_gpu": 50,
                              "batch_size_test_per_gpu": 50, "save_eval_imgs": True,
                              "lr": "5e-5", "weight_decay": "1e-5",
                              "comp_loss_params": {"consts": {"bce": 1.5, "ce": 0.0, "prod": 0.3},
                                                   "scale": {"clean": 1.0, "ada": 1.0, "pa": 1.0}},
                              "accum_grad": 4, "use_fast_loader": True,
                              "gamma_consts": {"train": "(2., .4)", "eval": "(2., 1.3)"},
                              "eval_freq": {"epoch": 4, "iter": 104}},
        "pgd_settings": {"type": "l_inf", "eps": "default", "iters_test": 20,
                         "alpha_test": 0.0027, "use_aa": True, "n_target_classes": 9,
                         "pgd_eval_loss": "ce", "attacks_to_run": "default"},
        "randomized_attack_settings": {"randomize": True, "apgd": True, "random_start": True,
                                       "eps_factor_loc": 0.4, "eps_factor_scale": 0.7,
                                       "mom_decay_loc": 0.0, "mom_decay_scale": 0.9,
                                       "iters_df": 75, "iters_const": 0, "alpha_factor": 5,
                                       "comp_loss_wmax": 0.4},
    }  # fmt: skip
    return yaml.safe_dump(changed(content, changes), sort_keys=False)


def changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for path, value in changes.items():
        *sections, key = path.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[key] = value
    return content


CIFAR100 = {
    "dataset_settings.name": "CIFAR-100",
    "model_load_path.std": "Base/cifar100_bit_rn152.tar",
    "training_settings.comp_loss_params.consts.prod": 0.2,
}
OTHERS: dict[str, dict[str, Any]] = {
    "cifar10_edm_apgd": {},
    "cifar100_edm_apgd": {
        **CIFAR100, "model_load_path.rob": "Base/cifar100_linf_edm_wrn70-16.pt",
        "forward_settings.std_model_scale": 2, "forward_settings.rob_model_scale": 1,
        "training_settings.batch_size_train_per_gpu": 40,
    },
    "cifar100_trades_apgd": {
        **CIFAR100, "model_load_path.rob": "Base/cifar100_linf_trades_wrn70-16.pt",
        "forward_settings.rob_model_type": "wrn7016", "forward_settings.gamma": 1.75,
        "forward_settings.std_model_scale": 2, "forward_settings.rob_model_scale": 1,
        "forward_settings.alpha_scale": 0.10, "forward_settings.alpha_bias": 0.815,
        "training_settings.lr": "1e-4", "training_settings.gamma_consts.eval": "(2., 1.0)",
        "training_settings.comp_loss_params.scale.clean": 2.0,
        "training_settings.comp_loss_params.consts": {"bce": 1.0, "ce": 0.5, "prod": 0.1},
    },
    "cifar10_at_apgd": {
        "model_load_path": {"std": "Base/cifar10_std_prn18.pt", "rob": "Base/cifar10_at_prn18.pt",
                            "comp": "None"},
        "forward_settings.std_model_type": "rn18", "forward_settings.rob_model_type": "rn18",
        "forward_settings.std_model_scale": 1.0, "forward_settings.rob_model_scale": 1.0,
        "forward_settings.in_planes": "(64, 64)", "forward_settings.pn_version": 3,
        "forward_settings.alpha_scale": 0.75, "forward_settings.alpha_bias": 0.2,
        "dataset_settings.pa_path": "/home/someone/dataset.pickle",
        "dataset_settings.gamma_0": 7.1, "dataset_settings.blocks": 8,
        "training_settings.epochs": 5, "training_settings.batch_size_train_per_gpu": 500,
        "training_settings.accum_grad": -1, "training_settings.use_fast_loader": False,
        "training_settings.gamma_consts.eval": "(3., 20.)",
        "training_settings.eval_freq": {"epoch": 2, "iter": "none"},
    },
}  # fmt: skip


def imported(tmp_path: Path, content: dict[str, Any] | str, name: str = "c", **options: Any):
    path = tmp_path / f"{name}.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return import_config(path, **options)


def again(tmp_path: Path, manifest: Manifest) -> Manifest:
    """Write and read a manifest."""
    (tmp_path / "manifest.yaml").write_text(dump_manifest(manifest))
    return load_manifest(tmp_path / "manifest.yaml")


@pytest.mark.parametrize(("folder", "kind", "size"), ALL)
def test_all_24_files_of_robust_resnets(folder, kind, size, tmp_path):
    name, robust = f"{kind}-{size}", kind == "RobustResNet"
    manifest: Any
    manifest, notes = imported(tmp_path, published(folder, kind, size), name)
    assert again(tmp_path, manifest) == manifest
    options = manifest.model.options()
    with torch.device("meta"):
        model = create_model(manifest.model.name, num_classes=10, **options)
    assert sum(p.numel() for p in model.parameters()) == SIZES[size][2 + robust]
    assert notes.unknown == []
    missing = [line for line in notes.faults if "class's default" in line]
    assert len(missing) == (4 if robust else 0)
    recipe = manifest.recipe
    if folder.startswith("Advanced"):
        assert "the file has the model alone" in notes.faults[-2]
        example: Any = load_manifest(ADVANCED)
        assert recipe == example.recipe.model_copy(update={"precision": recipe.precision})
        assert manifest.data.extra == example.data.extra
        assert options["activations"] == "SiLU"
        return
    assert manifest.data.name == folder.lower()
    assert (recipe.objective, recipe.beta, recipe.epochs, recipe.batch_size) == (
        "trades", 6.0, 100, 128,
    )  # fmt: skip
    assert (recipe.threat.eps, recipe.inner.step_size) == (8 / 255, pytest.approx(2 / 255))
    assert recipe.schedule.milestones == (0.75, 0.9)
    assert recipe.augmentation.rotation == (20 if folder == "CIFAR100" else 0)
    assert any("never reads this section" in line for line in notes.faults)
    assert any("PGD-20 on the test set" in line for line in notes.faults)
    assert any(line.startswith("dataset.data_path") for line in notes.dropped)


def test_the_names_of_the_24_manifests_differ(tmp_path):
    hashes, names = set(), set()
    for folder, kind, size in ALL:
        manifest, _ = imported(tmp_path, published(folder, kind, size), f"{kind}-{size}")
        hashes.add(manifest_hash(manifest))
        names.add(manifest.name)
    assert len(hashes) == len(names) == 24


BASE = ("CIFAR10", "RobustResNet", "A1")


@pytest.mark.parametrize(
    ("changes", "field", "value", "words"),
    [
        ({"epochs": 30}, "schedule.over", 100, "stops in the middle"),
        ({"lr_schedule": "cosine"}, "schedule.lag", 1, "its schedule is cosine"),
        ({"lr_schedule": "search"}, "schedule.milestones", (0.75, 0.9), "rates of 0.01 and 0.001"),
        ({"grad_clip": -1}, "grad_clip", None, ""),
        ({"criterion.name": "MartLoss"}, "objective", "mart", ""),
        ({"criterion.name": "MadrysLoss"}, "objective", "sat", "refers to a module"),
        ({"criterion.ce": True}, "inner.ascent", "ce", ""),
        ({"criterion.beta": 5}, "beta", 5, ""),
        ({"criterion.cutmix": True}, "augmentation.cutmix", None, "never published"),
        ({"criterion.distance": "l_2"}, "threat.norm", "l2", "SGD on the perturbation"),
        ({"dataset.use_cutout": True}, "augmentation.cutout", 16, ""),
        ({"dataset.use_cutmix": True}, "augmentation.cutmix", 1.0, "pastes twice"),
        ({"dataset.use_additional_data": True}, "mixture.extra", 0.5, "loses train_portion"),
        ({"ema": True, "tau": 0.99}, "ema.decay", 0.99, "neither evaluates nor selects"),
        ({"adjust_weight_decay": True}, "optimizer.groups", None, "squeeze-and-excitation"),
        ({"model.drop_rate_config": [0.1, 0, 0]}, "beta", 6.0, "accepts it and ignores it"),
        ({"model.num_classes": 100}, "beta", 6.0, "cifar10 has 10 classes"),
        ({"optimizer.nesterov": True}, "optimizer.nesterov", True, ""),
    ],
)
def test_other_values_of_robust_resnets(changes, field, value, words, tmp_path):
    manifest: Any
    manifest, notes = imported(tmp_path, changed(published(*BASE), changes))
    found = manifest.recipe
    for part in field.split("."):
        found = getattr(found, part)
    if field == "optimizer.groups":
        assert [(group.names, group.weight_decay) for group in found] == [(("fc",), 0.01)]
    else:
        assert found == value
    assert any(words in line for line in notes.faults)
    assert again(tmp_path, manifest) == manifest


def test_options_that_the_file_gives_are_kept(tmp_path):
    changes = {"scales": 4, "base_width": 64, "cardinality": 8, "se_reduction": 16}
    given = changed(published(*BASE), {f"model.{key}": value for key, value in changes.items()})
    manifest: Any
    manifest, notes = imported(tmp_path, given)
    with torch.device("meta"):
        model = create_model(manifest.model.name, **manifest.model.options())
    assert sum(p.numel() for p in model.parameters()) == 144_344_330
    assert not any("class's default" in line for line in notes.faults)


@pytest.mark.parametrize("name", OTHERS)
def test_all_files_of_adaptive_smoothing(name, tmp_path):
    manifest: Any
    manifest, notes = imported(tmp_path, smoothing(**OTHERS[name]), name)
    assert manifest.kind == "Mixing"
    assert again(tmp_path, manifest) == manifest
    assert notes.unknown == []
    recipe, constants = manifest.recipe, manifest.constants
    sizes = {"cifar10_edm_apgd": 200, "cifar100_edm_apgd": 160, "cifar100_trades_apgd": 200,
             "cifar10_at_apgd": 312}  # fmt: skip
    assert recipe.batch_size == sizes[name]
    small = name == "cifar10_at_apgd"
    assert recipe.accumulation == (20 if small else 4)
    assert (recipe.gamma_scale, recipe.gamma_bias) == (2, 0.4)
    assert manifest.resize == (None if small else 128)
    assert (recipe.attack.n_targets, recipe.attack.iterations_df) == (9, 75)
    assert (recipe.lr, recipe.weight_decay) == (1e-4 if "trades" in name else 5e-5, 1e-5)
    assert manifest.judging.threat.eps == recipe.attack.eps == 8 / 255
    gamma = {"cifar10_at_apgd": (3, 20), "cifar100_trades_apgd": (2, 1)}.get(name, (2, 1.3))
    assert (constants.gamma_scale, constants.gamma_bias) == gamma
    for key in ("std_model_scale", "rob_model_scale", "gamma"):
        assert any(line.startswith(f"forward_settings.{key}") for line in notes.faults)
    preset = any("published numbers are not of this file" in line for line in notes.faults)
    assert preset != small
    if small:
        assert any("pa_path" in line for line in notes.faults)
        assert any("version 3 always fails" in line for line in notes.faults)
        assert any("eval_freq.iter" in line for line in notes.faults)


def test_the_networks_of_a_file_are_those_that_were_published(tmp_path):
    manifest: Any
    manifest, _ = imported(tmp_path, smoothing())
    base = {"num_classes": 10}
    with torch.device("meta"):
        model = create_model(
            "adaptive_smoothing",
            accurate={**base, **manifest.accurate.model.model_dump(exclude_none=True)},
            robust={**base, **manifest.robust.model.model_dump(exclude_none=True)},
            mixing=manifest.mixing.model_dump(exclude_none=True),
            constants=manifest.constants.model_dump(exclude_none=True),
        )
    assert isinstance(model, Composite)
    assert sum(p.numel() for p in model.parameters()) == 566_924_395


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"dataset_settings.train_with_test": True}, "dataset_settings.train_with_test"),
        ({"forward_settings.use_policy": False}, "forward_settings.use_policy"),
        ({"forward_settings.in_planes": "(512, 3)"}, "forward_settings.in_planes"),
        ({"forward_settings.in_planes": "__import__('os')"}, "forward_settings.in_planes"),
        ({"forward_settings.std_model_type": "rn19"}, "forward_settings.std_model_type"),
        ({"forward_settings.std_model_type": ["rn50"]}, "forward_settings.std_model_type"),
        ({"forward_settings.rob_model_type": {"wrn": 1}}, "forward_settings.rob_model_type"),
        ({"dataset_settings.blocks": 0}, "dataset_settings.blocks"),
        ({"training_settings.lr": float("inf")}, "training_settings.lr"),
        ({"pgd_settings.type": "l_2"}, "pgd_settings.type"),
        ({"pgd_settings.attacks_to_run": ["fab"]}, "pgd_settings.attacks_to_run"),
        ({"training_settings.lr": "quick"}, "training_settings.lr"),
        ({"training_settings.epochs": 2.5}, "training_settings.epochs"),
        ({"randomized_attack_settings.randomize": False}, "randomized_attack_settings.randomize"),
        ({"model_load_path.rob": "None"}, "model_load_path.rob"),
        ({"training_settings": 3}, "training_settings"),
    ],
)
def test_what_can_not_be_done_is_refused_with_its_place(changes, place, tmp_path):
    with pytest.raises(ManifestError) as error:
        imported(tmp_path, smoothing(**changes))
    assert error.value.path == place


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"model.block_types": ["bottleneck"] * 3}, "model.block_types"),
        ({"model.block_types": [["basic_block"], "basic_block", "x"]}, "model.block_types"),
        ({"model.depth_configs": [float("inf"), 5, 5]}, "model.depth_configs"),
        ({"model.depth_configs": [5.5, 5, 5]}, "model.depth_configs"),
        ({"dataset.dataset_type": ["CIFAR10"]}, "dataset.dataset_type"),
        ({"epochs": float("nan")}, "epochs"),
        ({"model.channel_configs": [5, 7, 3]}, "model.channel_configs"),
        ({"model.name": "ResNet"}, "model.name"),
        ({"dataset.dataset_type": "IMAGENET"}, "dataset.dataset_type"),
        ({"criterion.name": "AwpLoss"}, "criterion.name"),
        ({"optimizer.lr": True}, "optimizer.lr"),
        ({"scheduler": []}, "scheduler"),
    ],
)
def test_what_robust_resnets_do_not_have_is_refused_with_its_place(changes, place, tmp_path):
    with pytest.raises(ManifestError) as error:
        imported(tmp_path, changed(published(*BASE), changes))
    assert error.value.path == place


def test_judging_follows_the_file(tmp_path):
    manifest: Any
    changes = {"pgd_settings.use_aa": False, "pgd_settings.iters_test": 7}
    manifest, _ = imported(tmp_path, smoothing(**changes))
    (item,) = manifest.judging.suite
    assert (item.attack, item.options) == ("pgd", {"steps": 7, "step_size": 0.0027})
    wanted = ["apgd-ce-rand", "apgd-t-rand", "fab-t", "square"]
    manifest, notes = imported(tmp_path, smoothing(**{"pgd_settings.attacks_to_run": wanted}))
    assert [item.name for item in manifest.judging.suite] == ["fab-t", "square"]
    assert any("apgd-t-rand is not randomised" in line for line in notes.faults)


def test_gpus_are_counted(tmp_path):
    manifest: Any
    manifest, _ = imported(tmp_path, smoothing(), gpus=2)
    assert manifest.recipe.batch_size == 100


@settings(max_examples=25, deadline=None)
@given(
    where=st.sampled_from(["", "forward_settings.", "training_settings.eval_freq.",
                           "training_settings.gamma_consts.", "pgd_settings."]),
    key=st.from_regex(r"[a-z_]{3,12}_new", fullmatch=True),
)  # fmt: skip
def test_no_key_is_dropped_in_silence(tmp_path_factory, where, key):
    _, notes = imported(tmp_path_factory.mktemp("c"), smoothing(**{f"{where}{key}": 1}))
    assert notes.unknown == [f"{where}{key}"]
    if where == "":
        given = changed(published(*BASE), {key: 1, f"model.{key}": 2, f"scheduler.{key}": 3})
        _, notes = imported(tmp_path_factory.mktemp("c"), given)
        assert sorted(notes.unknown) == sorted([key, f"model.{key}", f"scheduler.{key}"])


def test_the_command_prints_a_manifest_or_writes_one(tmp_path, capsys):
    path = tmp_path / "RobustResNet-A1.yaml"
    path.write_text(yaml.safe_dump(published(*BASE) | {"colour": "red"}))
    assert main(["import-config", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "# unknown key: colour" in printed
    assert "# fault: model.scales is missing" in printed
    output = tmp_path / "mine.yaml"
    assert main(["import-config", str(path), "-o", str(output)]) == 0
    told = capsys.readouterr().out
    assert "unknown key: colour" in told
    assert output.read_text() == printed
    assert load_manifest(output).name == "robustresnet-a1-cifar10"
    assert main(["import-config", str(path), "-o", str(output)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["import-config", str(path), "--gpus", "0"]) == 2
    path.write_text("a: 1")
    assert main(["import-config", str(path)]) == 2
    assert "is no configuration of RobustResNets" in capsys.readouterr().err
    assert main(["import-config", str(tmp_path / "away.yaml")]) == 2


def test_an_imported_manifest_is_planned(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTRAY_STORE", str(tmp_path / "store"))
    (tmp_path / "a1.yaml").write_text(yaml.safe_dump(published(*BASE)))
    assert main(["import-config", "a1.yaml", "-o", "m.yaml"]) == 0
    assert main(["plan", "--manifest", "m.yaml"]) == 0
    assert "19,222,738" in capsys.readouterr().out
