"""Networks of other libraries: names, identities, weights, inputs and outputs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from robustray.cli import main
from robustray.data import describe
from robustray.errors import ManifestError, UserError
from robustray.evaluation.networks import build_network, describe_network
from robustray.evaluation.record import published_text
from robustray.evaluation.subjects import find_subject, load_subject
from robustray.manifest import build_manifest, pin_code, validate
from robustray.models import (
    create_model,
    declared_input,
    find_model,
    list_models,
    load_weights,
    save_weights,
)
from robustray.models.libraries.library import Weights
from robustray.models.libraries.timm import read_settings
from robustray.models.weights.layouts import our_name
from robustray.registry import MODELS
from robustray.store import open_store, sha256_file
from robustray.sweeps import Study, make_plan
from robustray.sweeps.trial import TrialJob, attempt_trial
from tests.helpers import toy_library
from tests.helpers.libraries import needs_hub, needs_timm, scatter, torchvision_works
from tests.helpers.study_runs import STUDY

TOY = "toy:small"


@pytest.fixture
def toy(monkeypatch):
    """Registers the toy library."""
    libraries = {**MODELS.libraries, "toy": "tests.helpers.toy_library"}
    monkeypatch.setattr(MODELS, "libraries", libraries)
    monkeypatch.setattr(toy_library.Toy, "files", {})
    return toy_library.LIBRARY


def sweep(model: dict, grid: dict | None = None):
    document = yaml.safe_load(STUDY)
    document["data"] |= {"train_limit": 100, "validation": 40, "test_limit": 20}
    document["recipe"] |= {"epochs": 1}
    return validate(document | {"model": model, "grid": grid})


def evaluation(model, **changes) -> Any:
    document = {"kind": "Evaluation", "model": model, "data": {"name": "digits", "first": 8}}
    return build_manifest(document | changes)


def facts_of(manifest):
    return describe(manifest.data.config(), None, ("test",))


def test_a_prefix_is_no_module_and_options_are_arguments(toy):
    assert MODELS.knows(TOY)
    assert MODELS.is_brought(TOY)
    assert not MODELS.is_reference(TOY)
    assert MODELS.is_reference("nets:toy")
    assert list_models("toy:*") == [TOY]
    assert not any(name.startswith("toy:") for name in list_models())
    network = create_model(TOY, num_classes=3, in_channels=1, trained=False, width=2)
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    assert evaluation(TOY).model.name == TOY  # and no function of a user's
    assert evaluation({"name": TOY, "arguments": {"width": 2}}).model.options() == {"width": 2}
    with pytest.raises(ManifestError, match=r"model\.width: unknown key"):
        evaluation({"name": TOY, "width": 2})


def test_another_version_is_another_study(toy, monkeypatch):
    model = {"name": TOY, "arguments": {"trained": False}}
    study = Study.from_manifest(sweep(model))
    assert set(study.manifest.code) == {TOY}
    monkeypatch.setattr(toy_library.Toy, "version", "2")
    assert Study.from_manifest(sweep(model)).id != study.id
    with pytest.raises(ManifestError, match="differs from the code with which"):
        pin_code(study.manifest)


def test_a_grid_varies_arguments_of_the_library(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = {"name": TOY, "arguments": {"trained": False}}
    study = Study.from_manifest(sweep(model, {"arguments": {"width": [2, 3]}}))
    assert [trial.name for trial in study.trials] == ["width2", "width3"]
    assert make_plan(study).costs["width3"].profile.parameters == 3 * 10 + 10 * 4
    trial = study.trials[0]
    job = TrialJob(study.trial_prefix(trial.name), study.manifest, "store", None, trial)
    assert attempt_trial(job, lambda report: None)["outcome"] == "finished"


def test_a_study_begins_with_the_weights_that_its_driver_found(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wide, one, other = (tmp_path / f"{name}.safetensors" for name in ("wide", "one", "other"))
    save_weights(create_model(TOY, trained=False, width=8), wide)
    save_weights(create_model(TOY, trained=False), one)
    save_weights(create_model(TOY, trained=False), other)
    manifest = sweep({"name": TOY}, {"arguments": {"width": [4, 8], "trained": [True, False]}})
    with pytest.raises(ManifestError, match="toy:small can't be downloaded: no network"):
        Study.from_manifest(manifest)
    monkeypatch.setattr(
        toy_library.Toy,
        "fetch",
        lambda self, name, options: Weights(wide if options["width"] == 8 else self.files[name]),
    )
    toy.files["small"] = one
    study = Study.from_manifest(manifest)
    assert study.manifest.code == {
        TOY: MODELS.code_digest(TOY),
        f'weights of {TOY} {{"width": 4}}': sha256_file(one),
        f'weights of {TOY} {{"width": 8}}': sha256_file(wide),
    }
    assert build_manifest(yaml.safe_load(study.manifest_yaml())) == study.manifest
    assert pin_code(study.manifest) == study.manifest
    toy.files["small"] = other
    assert Study.from_manifest(manifest).id != study.id
    for trial in study.trials:
        job = TrialJob(study.trial_prefix(trial.name), study.manifest, "store", None, trial)
        differs = trial.model.options() == {"width": 4, "trained": True}
        if differs:
            found = attempt_trial(job, lambda report: None)
            assert found["outcome"] != "finished"
            assert "weights of toy:small" in found["message"]
            assert "differ from those with which the study was started" in found["message"]
        else:
            pin_code(job.pinned)  # another trial's weights are none of its business


def test_the_classes_of_the_data_set_choose_weights(toy, tmp_path, monkeypatch):
    save_weights(create_model(TOY, trained=False), tmp_path / "one.safetensors")
    asked = []
    monkeypatch.setattr(
        toy_library.Toy,
        "fetch",
        lambda self, name, options: asked.append(options) or Weights(tmp_path / "one.safetensors"),
    )
    pin_code(sweep({"name": TOY}))
    assert asked == [{"num_classes": 10}]


def test_the_input_is_standardised_within_and_the_state_dict_keeps_its_names(toy):
    network = create_model(TOY, trained=False)
    assert set(network.state_dict()) == {"conv.weight", "conv.bias", "fc.weight", "fc.bias"}
    x = torch.rand(2, 1, 8, 8)
    plain = toy_library.Small(10, 1, 4)
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network(x), plain((x - 0.5) / 0.25).logits)
    assert declared_input(TOY).size == (8, 8)
    assert declared_input("rrn_a1") is None


def test_an_evaluation_knows_library_input_and_published_numbers(toy, tmp_path):
    torch.manual_seed(3)
    network = create_model(TOY, trained=False)
    save_weights(network, tmp_path / "published.safetensors")
    toy.files["small"] = tmp_path / "published.safetensors"
    store, manifest = open_store(str(tmp_path / "store")), evaluation(TOY)
    subject = find_subject(manifest, facts_of(manifest), store)
    found = subject.network
    assert found["library"] == {"toy": "1"}
    assert found["input"]["resize"] == 9
    assert found["code_sha256"] == MODELS.code_digest(TOY)
    assert found["outputs"] == "logits"
    assert found["standardisation"] == {"pre_process": [[0.5], [0.25]]}
    toy.files.clear()  # a worker takes the weights from the store
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(load_subject(subject, store)(x), network.eval()(x))
    result = {
        "subject": {"network": json.loads(json.dumps(found))},
        "data": {"name": "digits"},
        "threat": {"norm": "linf", "eps": 0.1},
    }
    words = "published: clean 90.00 %, robust 50.00 % (digits, linf, eps = 0.1; toy 1)"
    assert published_text(result) == words
    result["threat"]["norm"] = "l2"
    assert "not what was judged here" in published_text(result)


def test_a_file_takes_the_place_of_published_weights(toy, tmp_path):
    network = create_model(TOY, trained=False)
    save_weights(network, tmp_path / "own.safetensors")
    manifest = evaluation(TOY, weights=str(tmp_path / "own.safetensors"))
    store = open_store(str(tmp_path / "store"))
    subject = find_subject(manifest, facts_of(manifest), store)
    assert subject.weights_key
    assert "published" not in subject.network  # those numbers are of other weights


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, r"toy:small can't be downloaded: no network; .* \(weights: FILE\)"),
        ({"trained": False}, r"weights: are missing"),
        ({"widht": 3}, r"unknown key; did you mean 'width'"),
    ],
)
def test_without_weights_there_is_one_message(toy, tmp_path, arguments, words):
    manifest = evaluation({"name": TOY, "arguments": arguments})
    with pytest.raises(ManifestError, match=words):
        find_subject(manifest, facts_of(manifest), open_store(str(tmp_path)))


def test_weights_that_do_not_fit_are_refused_as_they_are(toy, tmp_path):
    save_weights(create_model(TOY, trained=False, width=8), tmp_path / "w.safetensors")
    toy.files["small"] = tmp_path / "w.safetensors"
    with pytest.raises(ManifestError, match=r"trained: false [^!]*3 mismatched"):
        create_model(TOY)


def test_objects_with_logits_of_a_users_network_are_unwrapped_too(tmp_path, monkeypatch):
    (tmp_path / "answering.py").write_text(
        "from tests.helpers.toy_library import Small\ndef make():\n    return Small(10, 1, 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    manifest = build_manifest(
        {"kind": "Evaluation", "factory": "answering:make", "data": {"name": "digits", "first": 8}}
    )
    network = describe_network(manifest, facts_of(manifest))
    assert network["outputs"] == "logits"
    assert build_network(network)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("timm:resnet18", "timm", r"pip install 'robustray\[timm\]'"),
        ("torchvision:resnet18", "torchvision.models", "pip install torchvision"),
        ("robustbench:Standard", "robustbench", "pip install --no-deps robustbench"),
    ],
)
def test_a_missing_library_is_told_with_the_command(name, module, command, monkeypatch):
    from robustray.models.libraries import robustbench

    robustbench._records.cache_clear()
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ManifestError, match=command):
        create_model(name)


@needs_timm
@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("timm:resnet19", {}, "unknown network of timm 'resnet19'; did you mean"),
        ("timm:resnet18.nothing", {}, r"Allowed: resnet18, resnet18\.a1_in1k"),
        ("timm:resnet18", {"in_channels": 1}, "are for 3 channels, and these images have 1"),
        ("timm:resnet18", {"trained": False, "widht": 2}, "unexpected keyword argument 'widht'"),
        ("timm:resnet18", {"trained": False, "checkpoint_path": "x"}, "checkpoint_path is no arg"),
        ("timm:resnet18", {"trained": False, "pretrained_cfg": {}}, "pretrained_cfg is no arg"),
        ("timm:resnet18", {"trained": False, "features_only": True}, "features_only is no arg"),
        ("timm:resnet18", {"img_size": "224"}, r"arguments\.img_size: must be a whole number"),
    ],
)
def test_what_timm_has_not_is_told(name, options, words):
    with pytest.raises(UserError, match=words):
        create_model(name, **options)


@needs_timm
def test_timms_networks_are_timms_behind_their_constants():
    import timm  # pyright: ignore[reportMissingImports]

    facts = declared_input("timm:resnet50.a1_in1k")
    assert (facts.size, facts.resize, facts.crop_pct) == ((224, 224), 235, 0.95)
    assert facts.interpolation == "bicubic"
    assert declared_input("timm:vit_tiny_patch16_224", {"img_size": 32}).size == (32, 32)
    assert declared_input("timm:vit_tiny_patch16_224", {"img_size": [32, 48]}).size == (32, 48)
    with pytest.raises(ManifestError, match="crop mode 'border'"):
        read_settings("x", {"input_size": (3, 32, 32), "crop_mode": "border"}, {})
    torch.manual_seed(0)
    ours = create_model("timm:resnet10t", num_classes=7, trained=False).eval()
    theirs = timm.create_model("resnet10t", num_classes=7).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (facts.mean, facts.std))
    assert torch.equal(ours(x), theirs((x - mean) / std))
    grey = create_model("timm:resnet10t", num_classes=3, in_channels=1, trained=False)
    assert grey(torch.rand(2, 1, 32, 32)).shape == (2, 3)


@needs_timm
def test_a_grid_varies_timms_arguments():
    arguments = {"trained": False, "stem_width": 8}
    grid = {"arguments": {"channels": [[8, 8, 8, 8], [8, 16, 8, 8]], "drop_path_rate": [0, 0.1]}}
    study = Study.from_manifest(sweep({"name": "timm:resnet10t", "arguments": arguments}, grid))
    costs = make_plan(study).costs
    assert len(costs) == 4
    assert len({cost.profile.parameters for cost in costs.values()}) == 2


@pytest.mark.skipif(not torchvision_works(), reason="needs torchvision")
def test_torchvisions_networks_are_torchvisions_behind_their_constants(tmp_path, monkeypatch):
    from torchvision.models import resnet18

    name = "torchvision:resnet18"
    facts = declared_input(name)
    assert (facts.size, facts.resize, facts.interpolation) == ((224, 224), 256, "bilinear")
    torch.manual_seed(0)
    theirs = resnet18(num_classes=1000).eval()
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = folder / "resnet18-f37072fd.pth"  # as torchvision calls it: the digest's first digits
    torch.save(theirs.state_dict(), file)
    with pytest.raises(ManifestError, match=r"has SHA-256 [0-9a-f]{64}, not f37072fd\.\.\."):
        create_model(name)
    ours = create_model(name, trained=False).eval()
    assert not load_weights(ours, file).problems
    x = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (facts.mean, facts.std))
    assert torch.equal(ours(x), theirs((x - mean) / std))
    with pytest.raises(UserError, match="takes images of 3 channels, and these have 1"):
        create_model(name, in_channels=1, trained=False)
    with pytest.raises(UserError, match="Allowed: IMAGENET1K_V1"):
        create_model(name, published="IMAGENET1K_V9")
    with pytest.raises(UserError, match=r"arguments\.published: unknown set of weights"):
        declared_input(name, {"published": ["IMAGENET1K_V1"]})


@pytest.mark.skipif(not torchvision_works(), reason="needs torchvision")
@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "vit_b_16"])
def test_torchvisions_networks_are_built_as_for_its_weights(name, monkeypatch):
    """The reference is torchvision's own function, which gets random weights for the published."""
    from torchvision import models
    from torchvision.models import _api

    published = "IMAGENET1K_SWAG_E2E_V1" if name == "vit_b_16" else "IMAGENET1K_V1"
    network = f"torchvision:{name}"
    if name == "vit_b_16":
        with torch.device("meta"):
            built: Any = create_model(network, trained=False, published=published)
        assert built.image_size == 384
        return
    torch.manual_seed(0)
    ours = create_model(network, trained=False, published=published).eval()
    state = scatter(ours).state_dict()
    monkeypatch.setattr(_api, "load_state_dict_from_url", lambda *given, **options: state)
    theirs = models.get_model(name, weights=published).eval()
    facts = declared_input(network)
    x = torch.rand(1, 3, 96, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (facts.mean, facts.std))
    assert torch.equal(ours(x), theirs((x - mean) / std))


@pytest.mark.skipif(not torchvision_works(), reason="needs torchvision")
@pytest.mark.parametrize(
    ("name", "new", "old"),
    [
        ("densenet121", r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2"),
        ("vit_b_16", r"mlp\.([03])\.", lambda m: f"mlp.linear_{1 + int(m[1]) // 3}."),
    ],
)
def test_names_of_torchvisions_older_files_are_known(name, new, old):
    with torch.device("meta"):
        names = create_model(f"torchvision:{name}", trained=False).state_dict()
    older = {re.sub(new, old, key): key for key in names}
    assert set(older) != set(names)
    assert all(our_name(key, names) == own for key, own in older.items())


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Lays files of a commit into the hub's cache; nothing is downloaded."""
    from huggingface_hub import constants  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repository: str, files: dict[str, object]) -> Path:
        folder = tmp_path / f"models--{repository.replace('/', '--')}" / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        for name, content in files.items():
            if name.endswith(".safetensors"):
                save_file(content, folder / name)
            else:
                (folder / name).write_text(json.dumps(content))
        return folder

    return put


VIT = {
    "model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32,
    "patch_size": 16, "id2label": {"0": "a", "1": "b", "2": "c"},
}  # fmt: skip
PROCESSOR = {
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip


@needs_hub
def test_a_transformer_of_a_hub_gives_its_logits(hub):
    from transformers import (  # pyright: ignore[reportMissingImports]
        ViTConfig,
        ViTForImageClassification,
    )

    torch.manual_seed(0)
    theirs = ViTForImageClassification(ViTConfig(**VIT)).eval()
    files = {"config.json": VIT, "preprocessor_config.json": PROCESSOR}
    hub("someone/vit", files | {"model.safetensors": dict(theirs.state_dict())})
    ours = create_model("hf:someone/vit", num_classes=3, commit=COMMIT).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(ours(x), theirs((x - 0.5) / 0.5).logits)
    facts = declared_input("hf:someone/vit", {"commit": COMMIT})
    assert (facts.size, facts.resize, facts.interpolation) == ((32, 32), (32, 32), "bicubic")
    with pytest.raises(ManifestError, match="trained: false"):
        create_model("hf:someone/vit", num_classes=10, commit=COMMIT)


RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
    "layer_type": "basic", "id2label": {"0": "a", "1": "b"}, "dtype": "float16",
}  # fmt: skip
CONVNEXT = {
    "model_type": "convnext", "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2,
    "id2label": {"0": "a", "1": "b"}, "torch_dtype": "bfloat16",
}  # fmt: skip


@needs_hub
@pytest.mark.parametrize("config", [VIT, RESNET, CONVNEXT])
def test_files_that_transformers_saves_are_read(hub, config):
    from transformers import (  # pyright: ignore[reportMissingImports]
        AutoConfig,
        AutoModelForImageClassification,
    )

    plain = {key: value for key, value in config.items() if "dtype" not in key}
    torch.manual_seed(0)
    theirs = AutoModelForImageClassification.from_config(AutoConfig.for_model(**plain)).eval()
    scatter(theirs)
    processor = PROCESSOR | {"image_processor_type": "ViTImageProcessor"}
    folder = hub("someone/saved", {"preprocessor_config.json": processor})
    theirs.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    ours = create_model("hf:someone/saved", commit=COMMIT).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(ours(x), theirs((x - 0.5) / 0.5).logits)
    assert {tensor.dtype for tensor in ours.parameters()} == {torch.float32}
    if config is VIT:  # names of version 4, whatever the installed one calls its modules
        with safe_open(folder / "model.safetensors", "pt") as file:
            assert "vit.encoder.layer.0.attention.attention.query.weight" in set(file.keys())


def processed(hub, **changes: Any) -> Any:
    settings = {k: v for k, v in (PROCESSOR | changes).items() if v != "absent"}
    hub("someone/vit", {"config.json": VIT, "preprocessor_config.json": settings})
    return declared_input("hf:someone/vit", {"commit": COMMIT})


@needs_hub
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"do_flip_channel_order": True}, "do_flip_channel_order .* is True: .*BGR"),
        ({"do_blur": True}, "do_blur .* does not know what it does"),
        ({"size": {"longest_edge": 32}}, "size .* must be shortest_edge, or height and width"),
        ({"size": {"shortest_edge": 32}}, "do_center_crop .* sizes of their own"),
        ({"image_mean": [0.5]}, "image_mean .* must be three numbers"),
        ({"size": None}, "size .* is missing"),
        ({"image_std": None}, "image_std .* is missing"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std .* above 0"),
        ({"resample": 5}, "resample .* must be of 0, 1, 2, 3"),
        ({"do_rescale": "yes"}, "do_rescale .* true or false"),
        ({"crop_pct": 0.9}, "crop_pct .* have none"),
        ({"do_center_crop": True, "crop_size": 48}, "crop_size .* more than the resized image"),
        ({"image_processor_type": "SamImageProcessor"}, "does not know .* 'SamImageProcessor'"),
    ],
)
def test_what_a_processor_does_beyond_ours_is_refused(hub, changes, words):
    with pytest.raises(ManifestError, match=f"hf:someone/vit: .*{words}"):
        processed(hub, **changes)


@needs_hub
@pytest.mark.parametrize(
    ("changes", "size", "resize"),
    [
        ({"size": 64}, 64, (64, 64)),
        ({"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224}, 224, 256),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 384}, 384, (384, 384)),
        ({"image_processor_type": "LevitImageProcessor", "size": 224, "do_center_crop": True,
          "crop_size": 224}, 224, 256),
        ({"image_processor_type": "PoolFormerImageProcessor", "size": 224, "crop_pct": 0.9,
          "do_center_crop": True, "crop_size": 224}, 224, 248),
    ],
)  # fmt: skip
def test_sizes_are_those_of_the_class(hub, changes, size, resize):
    facts = processed(hub, **changes)
    assert (facts.size, facts.resize) == ((size, size), resize)


@needs_hub
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"do_normalize": False, "rescale_factor": 1 / 127.5},
        {"image_mean": "absent", "image_std": "absent"},
        {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True,
         "rescale_factor": 1 / 127.5, "include_top": True},
    ],
)  # fmt: skip
def test_standardisations_are_those_of_the_processor_itself(hub, changes):
    import numpy as np
    import transformers  # pyright: ignore[reportMissingImports]

    facts = processed(hub, **changes)
    settings = {key: value for key, value in (PROCESSOR | changes).items() if value != "absent"}
    title = settings.pop("image_processor_type", "ViTImageProcessor")
    theirs = getattr(transformers, f"{title}Pil", None) or getattr(transformers, title)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = torch.as_tensor(theirs(**settings)(pixels, return_tensors="np").pixel_values[0])
    x = torch.from_numpy(pixels).permute(2, 0, 1).double() / 255
    mean, std = (torch.tensor(v).double().view(3, 1, 1) for v in (facts.mean, facts.std))
    torch.testing.assert_close((x - mean) / std, expected.double(), atol=1e-4, rtol=1e-5)


@needs_hub
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": "hf-hub:someone/else"}, "architecture 'hf-hub:someone/else' is none"),
        ({"architecture": "local-dir:/tmp"}, "architecture 'local-dir:/tmp' is none"),
        ({"model_type": "timm_wrapper"}, "architecture None is none"),
        ({"architecture": "resnet10t", "model_args": {"checkpoint_path": "x"}}, "checkpoint_path"),
        (VIT | {"attn_implementation": "someone/kernel"}, "attn_implementation .* never used"),
    ],
)
def test_a_hubs_config_reads_no_other_files(hub, config, words):
    hub("someone/vit", {"config.json": config, "preprocessor_config.json": PROCESSOR})
    with pytest.raises(ManifestError, match=words):
        create_model("hf:someone/vit", commit=COMMIT, trained=False)


@needs_hub
def test_a_network_of_timm_on_a_hub_is_built_by_timm(hub):
    settings = {"input_size": [3, 64, 64], "mean": [0.4] * 3, "std": [0.2] * 3, "crop_pct": 0.9}
    config = {"architecture": "resnet10t", "num_classes": 5, "pretrained_cfg": settings}
    network: Any = create_model("timm:resnet10t", num_classes=5, trained=False)
    hub("timm/tiny", {"config.json": config, "model.safetensors": dict(network.state_dict())})
    ours: Any = create_model("hf:timm/tiny", num_classes=5, commit=COMMIT)
    assert ours.pre_process.standardisation == ((0.4,) * 3, (0.2,) * 3)
    assert torch.equal(ours.fc.weight, network.fc.weight)


@needs_hub
@pytest.mark.parametrize(
    ("options", "config", "words"),
    [
        ({}, VIT, r"arguments\.commit: is missing"),
        ({"commit": "main"}, VIT, "needs the commit that is meant, 40 hexadecimal digits"),
        ({"commit": COMMIT}, VIT | {"auto_map": {"AutoModel": "x.Y"}}, "which is never run"),
        ({"commit": COMMIT}, {"model_type": "nothing"}, "transformers has no such model"),
        ({"commit": COMMIT[::-1]}, VIT, r"can't be downloaded: config\.json: .*weights: FILE"),
        ({"commit": COMMIT}, VIT, r"can't be downloaded: model\.safetensors"),
    ],
)
def test_a_hubs_repository_is_refused_with_one_message(hub, options, config, words):
    hub("someone/vit", {"config.json": config, "preprocessor_config.json": PROCESSOR})
    with pytest.raises(UserError, match=words):
        create_model("hf:someone/vit", **options)


@needs_timm
def test_the_command_line_lists_a_librarys_networks(capsys):
    assert main(["models", "timm:resnet18"]) == 0
    said = capsys.readouterr().out
    assert "input      resized to 235 (bicubic), the middle 224 x 224 cut out" in said
    assert find_model("timm:resnet18").name == "timm:resnet18"


@needs_hub
@needs_timm
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["timm:nothing_at_all"], "unknown network of timm 'nothing_at_all'"),
        (["timm:resnet18.zzz"], "unknown network of timm 'resnet18.zzz'"),
        (["timm:*.zzz"], r"no network matches timm:\*\.zzz"),
        (["hf:someone"], "a name is hf:OWNER/REPO"),
        (["hf:someone/vit", "--set", "commit=main"], "needs the commit that is meant"),
        (["rrn_*", "--set", "commit=main"], "--set goes with the name of one network"),
    ],
)
def test_the_command_line_says_what_the_library_says(arguments, words, capsys):
    assert main(["models", *arguments]) == 2
    assert re.search(words, capsys.readouterr().err)


@needs_hub
def test_the_command_line_shows_a_hubs_network_at_a_commit(hub, capsys):
    hub("someone/vit", {"config.json": VIT, "preprocessor_config.json": PROCESSOR})
    assert main(["models", "hf:someone/vit"]) == 0
    assert "needs the commit that is meant" in capsys.readouterr().out
    assert main(["models", "hf:someone/vit", "--set", f"commit={COMMIT}"]) == 0
    assert "input      resized to (32, 32) (bicubic)" in capsys.readouterr().out
