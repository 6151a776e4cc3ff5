"""The RobustResNet study's configuration files, as manifests of kind Sweep.

The study (arXiv:2212.11005) has 24: WRN-A1 to A4 and RobustResNet-A1 to A4, each for CIFAR-10,
CIFAR-100 and advanced training. Those of advanced training have a section ``model`` and no other:
the rest is on the command line.
"""

from __future__ import annotations

from typing import Any

from robustray.zoo.configs.reading import Notes, Values

_BLOCKS = {"basic_block": "basic", "robust_res_block": "robust"}
_ROBUST = {"scales": 8, "base_width": 10, "cardinality": 4, "se_reduction": 64}
_CLASS_DEFAULTS = {"scales": 4, "base_width": 64, "cardinality": 8, "se_reduction": 16}
_STAGES = 3
_OBJECTIVES = {
    "TradesLoss": "trades",
    "MartLoss": "mart",
    "MadrysLoss": "sat",
    "MadryLoss": "sat",
    "SATLoss": "sat",
    "CrossEntropyLoss": "natural",
}
_DATA = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "MNIST": "mnist"}
_PUBLISHED_EPOCHS = 100  # of the schedule, whatever ``epochs`` says
_EXTRA = "ti_500K_pseudo_labeled.pickle"
_ROTATION = 20.0  # of CIFAR-100, in degrees


def is_theirs(config: Values) -> bool:
    """Tell whether a file is one of the study's."""
    return "model" in config and "forward_settings" not in config


def manifest_of(config: Values, notes: Notes) -> dict[str, Any]:
    """Return the manifest's sections; what is wrong or left out goes into the notes."""
    advanced = not any(name in config for name in ("criterion", "dataset", "optimizer"))
    model, classes = _model(config.section("model"), notes)
    body = _advanced(model, notes) if advanced else _baseline(config, notes)
    whole = config.whole("num_classes", None)
    expected = 100 if body["data"]["name"] == "cifar100" else 10
    for name, number in (("model.num_classes", classes), ("num_classes", whole)):
        if number not in (None, expected):
            notes.faults.append(
                f"{name} is {number}, and {body['data']['name']} has {expected} classes: the "
                "network gets as many as the data set has"
            )
    return {"kind": "Sweep", "model": model, **body}


def _model(section: Values, notes: Notes) -> tuple[dict[str, Any], int | None]:
    section.choice("name", {"PreActResNet": None})
    depths = section.wholes("depth_configs", _STAGES, [5, 5, 5])
    channels = section.wholes("channel_configs", _STAGES + 1, [16, 160, 320, 640])
    blocks = section.stages("block_types", _STAGES, ["basic_block"] * _STAGES)
    for block in blocks:
        if not isinstance(block, str) or block not in _BLOCKS:
            section.refuse("block_types", f"must be of {', '.join(_BLOCKS)}; there are no others")
    found: dict[str, Any] = {
        "name": "preact_resnet",
        "depths": depths,
        "channels": channels,
        "block": _same([_BLOCKS[block] for block in blocks]),
        "activations": _same(section.stages("activations", _STAGES, ["ReLU"] * _STAGES)),
        "normalizations": _same(section.stages("normalizations", _STAGES, ["BatchNorm"] * _STAGES)),
        "kernel_sizes": _same(section.stages("kernel_size_configs", _STAGES, [3] * _STAGES)),
        "strides": section.stages("stride_config", _STAGES, [1, 2, 2]),
        "stem_stride": section.whole("stem_stride", 1),
        "pre_process": section.flag("pre_process", False),
        "use_init": section.flag("use_init", True),
    }
    robust = "robust_res_block" in blocks
    for name, published in _ROBUST.items():
        value = section.whole(name, None)
        if robust:
            found[name] = published if value is None else value
            if value is None:
                notes.faults.append(
                    f"model.{name} is missing, so that the published code builds robust blocks "
                    f"with its class's default {_CLASS_DEFAULTS[name]}, which is another network; "
                    f"the published networks have {published}, and so has the manifest"
                )
        elif value is not None:
            notes.dropped.append(f"model.{name}: basic blocks have none")
    for name in ("drop_rate_config", "zero_init_residual"):
        value = section.take(name, None)
        if value is not None:
            wanted = any(value) if isinstance(value, list) else value
            text = f"model.{name}: the published code accepts it and ignores it"
            (notes.faults if wanted else notes.dropped).append(text)
    return found, section.whole("num_classes", None)


def _same(values: list[Any]) -> Any:
    """Return the one value that all stages have, or the list."""
    return values[0] if all(value == values[0] for value in values) else values


def _baseline(config: Values, notes: Notes) -> dict[str, Any]:
    epochs = config.whole("epochs", _PUBLISHED_EPOCHS)
    data, evaluation, batch_size, augmentation, mixture = _dataset(config.section("dataset"), notes)
    recipe: dict[str, Any] = {
        **_criterion(config.section("criterion"), notes),
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": _optimizer(config.section("optimizer"), config, notes),
        "schedule": _schedule(config, epochs, notes),
        "augmentation": augmentation,
        "selection": {"start": 0.5, "attack": "pgd-20"},
    }
    clip = config.number("grad_clip", 5.0)
    recipe["grad_clip"] = None if clip < 0 else clip
    if mixture:
        recipe["mixture"] = mixture
    if config.take("ema", None):
        recipe["ema"] = {
            "decay": config.number("tau", 0.995),
            "ramp": not config.flag("static_decay", False),
        }
        notes.faults.append(
            "ema: the published code keeps an average that it neither evaluates nor selects by; "
            "robustray evaluates the average"
        )
    else:
        for name in ("tau", "static_decay"):
            if config.take(name, None) is not None:
                notes.dropped.append(f"{name}: there is no ema")
    if config.take("log_frequency", None) is not None:
        notes.dropped.append("log_frequency: every epoch is in the journal")
    notes.faults.append(
        "the best checkpoint is chosen by PGD-20 on the test set; robustray holds 1024 training "
        "images out for that (data.validation)"
    )
    return {"recipe": recipe, "data": data, "evaluation": evaluation}


def _criterion(section: Values, notes: Notes) -> dict[str, Any]:
    objective = section.choice("name", _OBJECTIVES)
    eps, step = section.number("epsilon", 0.031), section.number("step_size", 0.007)
    steps, beta = section.whole("perturb_steps", 10), section.number("beta", 6.0)
    norm = section.choice("distance", {"l_inf": "linf", "l_2": "l2"}, "l_inf")
    ascends_ce = section.flag("ce", False)
    for name in ("adjust_freeze",):
        if section.take(name, None) is not None:
            notes.dropped.append(f"criterion.{name}: attacks never change gradients of weights")
    if section.flag("cutmix", False):
        notes.faults.append("criterion.cutmix: needs a class that was never published; left out")
    found: dict[str, Any] = {"objective": objective}
    if objective == "natural":
        return found
    found["threat"] = {"norm": norm, "eps": eps}
    start = 0.001 if objective == "trades" else step
    found["inner"] = {
        "steps": steps,
        "step_size": step,
        "start": "normal",
        "start_scale": start,
    }
    if objective == "trades" and ascends_ce:
        found["inner"]["ascent"] = "ce"
    if objective == "sat":
        notes.faults.append(
            "criterion.name: the published SAT refers to a module that is not there and can't run; "
            "the manifest has its losses and attack as they are written"
        )
    else:
        found["beta"] = beta
    if norm == "l2":
        notes.faults.append(
            "criterion.distance: in l_2 the published attack is SGD on the perturbation, with "
            "steps of its own; the manifest has steps of step_size along the gradient"
        )
    return found


def _dataset(
    section: Values, notes: Notes
) -> tuple[dict[str, Any], dict[str, Any], int, dict[str, Any], dict[str, Any] | None]:
    section.choice("name", {"DatasetGenerator": None}, "DatasetGenerator")
    name = _DATA[section.named("dataset_type", _DATA, f"robustray reads {', '.join(_DATA)}")]
    data: dict[str, Any] = {"name": name, "validation": 1024}
    augmentation: dict[str, Any] = {"crop_padding": 4, "flip": True}
    if name == "cifar100":
        augmentation["rotation"] = _ROTATION
    if section.flag("use_cutout", False):
        augmentation["cutout"] = section.whole("cutout_length", 16)
    elif section.take("cutout_length", None) is not None:
        notes.dropped.append("dataset.cutout_length: use_cutout is not set")
    if section.flag("use_cutmix", False):
        augmentation["cutmix"] = 1.0
        notes.faults.append(
            "dataset.use_cutmix: the published wrapper pastes twice, each time into half of the "
            "images; robustray's pastes once into every image"
        )
    mixture = None
    portion = section.number("train_portion", None)
    if section.flag("use_additional_data", False):
        portion = 0.5 if portion is None else portion
        mixture = {"extra": round(1 - portion, 10)}
        data["extra"] = {"file": _EXTRA}
        notes.faults.append(
            "dataset.use_additional_data: the published loader loses train_portion, so that all "
            f"images are drawn alike; the manifest has {1 - portion:g} of each batch from them"
        )
    elif portion is not None:
        notes.dropped.append("dataset.train_portion: use_additional_data is not set")
    if section.take("data_path", None) is not None:
        notes.dropped.append("dataset.data_path: the folder is $ROBUSTRAY_DATA")
    if section.take("num_of_workers", None) is not None:
        notes.dropped.append("dataset.num_of_workers: see resources.cpus")
    if section.take("input_size", None) is not None:
        notes.dropped.append("dataset.input_size: the images tell it")
    evaluation = {"batch_size": section.whole("eval_batch_size", 128)}
    return data, evaluation, section.whole("train_batch_size", 128), augmentation, mixture


def _optimizer(section: Values, config: Values, notes: Notes) -> dict[str, Any]:
    section.choice("name", {"SGD": "sgd"}, "SGD")
    found: dict[str, Any] = {
        "name": "sgd",
        "lr": section.number("lr", 0.1),
        "momentum": section.number("momentum", 0.9),
        "nesterov": section.flag("nesterov", False),
        "weight_decay": section.number("weight_decay", 2e-4),
    }
    if config.take("adjust_weight_decay", None):
        found["groups"] = [{"names": ["fc"], "weight_decay": 0.01}]
        notes.faults.append(
            "adjust_weight_decay: meant for the classifier, it catches every name with fc in it, "
            "those of the squeeze-and-excitation layers too; the manifest has it as published"
        )
    return found


def _schedule(config: Values, epochs: int, notes: Notes) -> dict[str, Any]:
    scheduler = config.section("scheduler")
    kind = config.choice(
        "lr_schedule", {"fixed": "fixed", "cosine": "cosine", "search": "search"}, "fixed"
    )
    if config.take("scheduler", None) is not None:
        wanted = (scheduler.take("name", None), scheduler.take("milestones", None))
        gamma = scheduler.take("gamma", None)
        notes.faults.append(
            f"scheduler ({wanted[0]}, milestones {wanted[1]}, gamma {gamma}): the published code "
            f"never reads this section; its schedule is {kind} (lr_schedule)"
        )
    over = _PUBLISHED_EPOCHS if epochs < _PUBLISHED_EPOCHS else None
    if over:
        notes.faults.append(
            f"epochs: with {epochs} the published schedule is still that of {over} epochs, and "
            "stops in the middle (recipe.schedule.over)"
        )
    if kind == "cosine":
        found: dict[str, Any] = {"name": "cosine", "lag": 1}
    elif kind == "search":
        notes.faults.append(
            "lr_schedule: search sets rates of 0.01 and 0.001 from epochs 75 and 90 on; the "
            "manifest divides optimizer.lr by 10 there, which is the same for lr 0.1"
        )
        length = over or epochs
        found = {"name": "step", "milestones": [75 / length, min(1.0, 90 / length)], "gamma": 0.1}
    else:
        found = {"name": "step", "milestones": [0.75, 0.9], "gamma": 0.1}
    return {**found, **({"over": over} if over else {})}


def _advanced(model: dict[str, Any], notes: Notes) -> dict[str, Any]:
    notes.faults.append(
        "the file has the model alone: recipe and data are those of the published command line of "
        "advanced training (TRADES with 500K pseudo-labelled images), which can't start as "
        "published (it imports a folder that is not there, and its two data sets are never mixed)"
    )
    if not model["pre_process"]:
        notes.faults.append(
            "model.pre_process is not set; the weights of WRN-A4 that were published for this "
            "training standardise the input (pre_process: true)"
        )
    recipe = {
        "objective": "trades",
        "beta": 6.0,
        "label_smoothing": 0.1,
        "threat": {"norm": "linf", "eps": 8 / 255},
        "inner": {
            "steps": 10,
            "step_size": 2 / 255,
            "start": "uniform",
            "statistics": "batch",
        },
        "batch_norm": {"first_momentum": 1.0, "momentum": 0.01, "updates": "adversarial"},
        "epochs": 400,
        "batch_size": 1024,
        "mixture": {"extra": 0.7, "epoch_images": 50000},
        "optimizer": {
            "name": "sgd",
            "lr": 0.4,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
            "groups": [{"names": ["bn", "batchnorm"], "weight_decay": 0.0}],
        },
        "schedule": {
            "name": "one_cycle",
            "per": "epoch",
            "rise": 0.025,
            "divisors": [25, 250000],
            "momentum": [0.95, 0.85],
        },
        "grad_clip": None,
        "ema": {"decay": 0.995, "warmup_epochs": 10},
        "augmentation": {"crop_padding": 4, "flip": True},
        "selection": {"start": 0.0, "attack": "cw-40"},
    }
    data = {"name": "cifar10", "validation": 1024, "extra": {"file": _EXTRA}}
    return {"recipe": recipe, "data": data}
