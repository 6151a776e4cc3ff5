"""Adaptive smoothing's configuration files, as manifests of kind Mixing (arXiv:2301.12554)."""

from __future__ import annotations

from typing import Any

from robustray.zoo.configs.reading import Notes, Values

# The networks by their published names, and the size of image that each base gets.
_BASES: dict[str, dict[str, Any]] = {
    "rn18": {"name": "cifar_resnet18"},
    "rn50": {"name": "bit_r50x1"},
    "rn152": {"name": "bit_r152x2"},
    "wrn": {"name": "trades_wrn_34_10"},
    "wrn7016": {"name": "dm_wrn_70_16"},
    "wrn7016_silu": {"name": "dm_wrn_70_16"},
}
_ACCURATE = {name: _BASES[name] for name in ("rn18", "rn50", "rn152")}
_ROBUST = {name: _BASES[name] for name in ("rn18", "wrn", "wrn7016", "wrn7016_silu")}
_RESIZED = 128  # pixels that BiT networks get
_CHANNELS = {
    64: [64, 128, 256, 512],
    160: [160, 320, 512, 768],
    256: [256, 256, 384, 512],
    512: [512, 256, 384, 512],
}
_PLACEHOLDER = "YOUR_MODEL_ROOT_DIR"
# Behind the published numbers: the evaluation's own, by data set and robust base.
_PUBLISHED = {
    ("cifar10", "wrn7016_silu"): "cifar10-edm",
    ("cifar100", "wrn7016_silu"): "cifar100-edm",
    ("cifar100", "wrn7016"): "cifar100-trades",
}
_ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
_ADAPTIVE = ("apgd-ce-rand", "apgd-t-rand")


def is_theirs(config: Values) -> bool:
    """Tell whether a file is one of the study's."""
    return "forward_settings" in config


def manifest_of(config: Values, notes: Notes, gpus: int | None) -> dict[str, Any]:
    """Return the manifest's sections; what is wrong or left out goes into the notes.

    ``gpus`` is what the published batch sizes per GPU are multiplied by; None: as published, 4, or
    1 with images that were attacked beforehand.
    """
    forward = config.section("forward_settings")
    data = config.section("dataset_settings")
    training, pgd = config.section("training_settings"), config.section("pgd_settings")
    name = data.choice("name", {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100"})
    blocks, attacked = _data(data, notes)
    gpus = gpus or (1 if attacked else 4)
    found: dict[str, Any] = {
        "kind": "Mixing",
        "seed": config.whole("seed", 0),
        "data": {"name": name},
        **_forward(forward, config, name, notes),
    }
    gammas = training.section("gamma_consts")
    trained, judged = gammas.numbers("train", 2), gammas.numbers("eval", 2)
    found["constants"] |= _gamma(judged)
    n_targets = pgd.whole("n_target_classes", 9)
    found["recipe"] = _training(training, n_targets, blocks, gpus, notes) | _gamma(trained)
    found["recipe"]["attack"] = _attack(
        config.section("randomized_attack_settings"), n_targets, notes
    )
    found["judging"] = _judging(pgd, found["recipe"]["attack"], notes)
    notes.faults += [
        "the published training can't start (a curly quotation mark, attributes that are not set, "
        "the mean of a bool): the manifest has what the file says",
        "the published evaluation stops after about 500 images; judging.first is the test set",
    ]
    return found


def _data(section: Values, notes: Notes) -> tuple[int, bool]:
    """Return the number of blocks, and whether there are images attacked beforehand."""
    if section.flag("train_with_test", False):
        section.refuse("train_with_test", "robustray never trains on the test set: must be false")
    if not section.flag("train_shuffle", True):
        notes.dropped.append("dataset_settings.train_shuffle: batches are always shuffled")
    if section.take("path", None) is not None:
        notes.dropped.append("dataset_settings.path: the folder is $ROBUSTRAY_DATA")
    path, gamma_0 = section.text("pa_path"), section.take("gamma_0", None)
    if path is not None:
        notes.faults.append(
            f"dataset_settings.pa_path ({path}), gamma_0 ({gamma_0}): the images attacked "
            "beforehand were never published, and the script that makes them can't run; the "
            "manifest trains without them"
        )
    blocks = section.whole("blocks", 5)
    if blocks < 1:
        section.refuse("blocks", "must be at least 1")
    return blocks, path is not None


def _forward(section: Values, config: Values, data: str, notes: Notes) -> dict[str, Any]:
    accurate = section.named("std_model_type", _ACCURATE, f"must be {', '.join(_ACCURATE)}")
    robust = section.named("rob_model_type", _ROBUST, f"must be {', '.join(_ROBUST)}")
    if not section.flag("use_policy", True):
        section.refuse(
            "use_policy",
            "without a mixing network nothing is trained: evaluate adaptive_smoothing with "
            "use_policy: false",
        )
    planes = section.numbers("in_planes", 2)
    if not all(number in _CHANNELS for number in planes):
        section.refuse("in_planes", f"must be two of {', '.join(map(str, _CHANNELS))}")
    constants = {
        "alpha_scale": section.number("alpha_scale", 1.0),
        "alpha_bias": section.number("alpha_bias", 0.0),
    }
    scales = {"std_model_scale": "std_scale", "rob_model_scale": "rob_scale"}
    for theirs, ours in scales.items():
        read = section.number(ours, None)
        written = section.number(theirs, None)
        value = read if read is not None else written
        if value is not None:
            constants[ours] = value
        if written is not None and read is None:
            notes.faults.append(
                f"forward_settings.{theirs}: the published code reads {ours} and never this key, "
                f"so that the scale was 1; the manifest has constants.{ours}: {value:g}"
            )
    gamma = section.number("gamma", None)
    if gamma is not None:
        notes.faults.append(
            f"forward_settings.gamma ({gamma:g}): the published code loses it, and with a mixing "
            "network it has no effect"
        )
    if section.take("ema_decay", None) is not None:
        notes.faults.append("forward_settings.ema_decay: nothing reads it, there is no average")
    if section.take("parallel", None) is not None:
        notes.dropped.append("forward_settings.parallel: see resources")
    if (preset := _PUBLISHED.get((data, robust))) is not None:
        notes.faults.append(
            f"the published numbers are not of this file's constants: the preset {preset} of "
            "adaptive_smoothing has those that are behind them"
        )
    weights = _weights(config, notes)
    if accurate == "rn18" or robust == "rn18":
        notes.faults.append(
            "rn18 is a ResNet-18, while the file names of its weights say prn18; they were never "
            "published"
        )
    found: dict[str, Any] = {
        "accurate": {"model": dict(_ACCURATE[accurate]), "weights": {"uri": weights["std"]}},
        "robust": {"model": dict(_ROBUST[robust]), "weights": {"uri": weights["rob"]}},
        "mixing": {
            "version": section.whole("pn_version", 4),
            "accurate": _CHANNELS[planes[0]],
            "robust": _CHANNELS[planes[1]],
        },
        "constants": constants,
        "policy_graph": section.flag("policy_graph", True),
    }
    if found["mixing"]["version"] == 3:
        notes.faults.append(
            "forward_settings.pn_version: version 3 always fails in the published code; robustray "
            "has its arithmetic"
        )
    if accurate != "rn18":
        found["resize"] = _RESIZED
    return found


def _weights(config: Values, notes: Notes) -> dict[str, str]:
    section, root = config.section("model_load_path"), config.text("log_dir")
    found = {role: section.text(role) for role in ("std", "rob", "comp")}
    log_path = config.text("log_path")
    if log_path is not None:
        notes.dropped.append(f"log_path ({log_path}): results are in the store")
    if root is None or root == _PLACEHOLDER:
        notes.dropped.append("log_dir: a placeholder; set the weights' uri to where the files are")
        root = ""
    if found["comp"] is not None:
        notes.dropped.append(
            f"model_load_path.comp ({found['comp']}): a checkpoint to go on from; a job trains its "
            "mixing network, and robustray weights assemble takes one that is there"
        )
    given: dict[str, str] = {}
    for role in ("std", "rob"):
        name = found[role]
        if name is None:
            section.refuse(role, "must be a file")
        given[role] = f"{root.rstrip('/')}/{name}" if root else name
    if given["std"].endswith(".tar"):
        notes.faults.append(
            f"model_load_path.std ({found['std']}): the published evaluation expects it as .pt, "
            "and the download is called .._std_rn152.pt: one file with three names"
        )
    return given


def _gamma(pair: tuple[Any, ...]) -> dict[str, Any]:
    return {"gamma_scale": pair[0], "gamma_bias": pair[1]}


def _training(
    section: Values, n_targets: int, blocks: int, gpus: int, notes: Notes
) -> dict[str, Any]:
    per_gpu = section.whole("batch_size_train_per_gpu")
    size = per_gpu * gpus * 5 // blocks
    notes.dropped.append(
        f"training_settings.batch_size_train_per_gpu: {per_gpu} on {gpus} GPUs (--gpus) are "
        f"recipe.batch_size {size}"
    )
    section.take("batch_size_test_per_gpu", None)
    notes.dropped.append("training_settings.batch_size_test_per_gpu: see judging.batch_size")
    if section.take("save_eval_imgs", None):
        notes.dropped.append("training_settings.save_eval_imgs: verdicts are kept, not images")
    loss = section.section("comp_loss_params")
    consts, scale = loss.section("consts"), loss.section("scale")
    if scale.take("pa", None) is not None:
        notes.dropped.append(
            "training_settings.comp_loss_params.scale.pa: there are no such images"
        )
    accumulation, minibatches = section.whole("accum_grad", -1), 2 * (n_targets + 1)
    if not section.flag("use_fast_loader", True):
        notes.faults.append(
            "training_settings.use_fast_loader: a round of robustray's always has as many clean "
            "images as attacked ones"
        )
    rhythm = section.section("eval_freq")
    rhythm.take("epoch", None)
    if rhythm.take("iter", None) == "none":
        notes.faults.append("training_settings.eval_freq.iter: none ends in an error as published")
    notes.dropped.append("training_settings.eval_freq: the mixture is judged after its training")
    return {
        "epochs": section.whole("epochs"),
        "batch_size": size,
        "accumulation": minibatches if accumulation == -1 else accumulation,
        "lr": section.number("lr"),
        "weight_decay": section.number("weight_decay", 0.0),
        "bce": consts.number("bce"),
        "ce": consts.number("ce"),
        "product": consts.number("prod"),
        "clean_scale": scale.number("clean", 1.0),
        "attacked_scale": scale.number("ada", 1.0),
    }


def _attack(section: Values, n_targets: int, notes: Notes) -> dict[str, Any]:
    apgd = section.flag("apgd", True)
    if not section.flag("randomize", True):
        section.refuse(
            "randomize", "ends in an error as published, and robustray always draws: must be true"
        )
    if not section.flag("random_start", True):
        section.refuse("random_start", "robustray's attacks start at random points: must be true")
    found: dict[str, Any] = {
        "method": "apgd" if apgd else "pgd",
        "eps_low": section.number("eps_factor_loc", 0.4),
        "eps_span": section.number("eps_factor_scale", 0.7),
        "iterations_df": section.whole("iters_df", 75),
        "iterations_extra": section.whole("iters_const", 0),
        "weight_max": section.number("comp_loss_wmax", 0.4),
        "n_targets": n_targets,
    }
    of_pgd = {
        "alpha_factor": "step_factor",
        "mom_decay_loc": "momentum_low",
        "mom_decay_scale": "momentum_span",
    }
    for theirs, ours in of_pgd.items():
        value = section.number(theirs, None)
        if value is None:
            continue
        if apgd:
            notes.dropped.append(f"randomized_attack_settings.{theirs}: APGD uses none")
        else:
            found[ours] = value
    if apgd:
        notes.faults.append(
            "images that APGD never fooled are random noise in the published training, and count "
            "as attacked; the manifest takes the point of the largest loss "
            "(recipe.attack.never_fooled: start is as published)"
        )
    return found


def _judging(section: Values, attack: dict[str, Any], notes: Notes) -> dict[str, Any]:
    kind = section.take("type", "l_inf")
    if kind != "l_inf":
        section.refuse("type", "mixing networks are trained in l_inf: must be 'l_inf'")
    if section.take("eps", "default") == "default":
        eps: Any = 8 / 255
    else:
        eps = section.number("eps")
    attack["eps"] = eps
    steps, size = section.whole("iters_test", 20), section.number("alpha_test", 0.0027)
    loss, wanted = section.text("pgd_eval_loss", "ce"), section.take("attacks_to_run", "default")
    found: dict[str, Any] = {"first": 10000, "threat": {"norm": "linf", "eps": eps}}
    if not section.flag("use_aa", True):
        options = {"steps": steps, "step_size": size}
        found["suite"] = [{"name": "pgd-eval", "attack": "pgd", "options": options}]
        if loss != "ce":
            notes.faults.append(
                f"pgd_settings.pgd_eval_loss ({loss}): the manifest attacks with the cross-entropy"
            )
        return found
    notes.dropped.append(
        "pgd_settings.iters_test, alpha_test, pgd_eval_loss: AutoAttack has none of them"
    )
    names = _ATTACKS if wanted == "default" else _named(section, wanted)
    if set(names) & set(_ADAPTIVE):
        notes.faults.append(
            "pgd_settings.attacks_to_run: apgd-t-rand is not randomised as published; "
            "judging.adaptive has the attack that was meant"
        )
    plain = [name for name in names if name not in _ADAPTIVE]
    whole = wanted == "default" or plain == list(_ATTACKS) or not plain
    found["suite"] = ["autoattack-standard"] if whole else plain
    if "fab-t" in names:
        notes.faults.append("the published copy of FAB always ends in an error; robustray's runs")
    return found


def _named(section: Values, wanted: object) -> tuple[str, ...]:
    known = (*_ATTACKS, *_ADAPTIVE)
    if not isinstance(wanted, list) or not wanted or not set(map(str, wanted)) <= set(known):
        section.refuse("attacks_to_run", f"must be 'default' or a list of {', '.join(known)}")
    return tuple(map(str, wanted))
