"""Write the published experiments on gradient direction as manifests, one for each command.

python scripts/alignment_manifests.py COMMANDS.yaml [FOLDER]

COMMANDS.yaml is the table of the 98 published commands. What is wrong with a command (a checkpoint
of another run, a typing error) is corrected, and stands in the manifest's first lines.
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

# What is said of a command and is part of what was published; everything else is corrected.
KEPT = (
    "largest epsilons exceed",
    "launch script missing",
    "README-described separate generator",
    "uses state_dict_d_best_epoch",
)
LEFT_OUT = (
    "# Left out: the alignment, and the network: the command took one of RobustBench by its name.",
    "#   imagenet_alignment.yaml beside this folder has the alignment, with BigGAN-deep.",
)
FOLDER = Path(__file__).resolve().parent.parent / "manifests/alignment/published"


def main(arguments: list[str]) -> int:
    """Write all manifests; return the exit code."""
    if not 1 <= len(arguments) <= 2:
        print(__doc__, file=sys.stderr)
        return 2
    table = yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8"))
    folder = Path(arguments[1]) if len(arguments) == 2 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for experiment in table["experiments"]:
        name = run_name(experiment["id"])
        (folder / f"{name}.yaml").write_text(manifest_text(experiment), encoding="utf-8")
    print(f"{len(table['experiments'])} manifests in {folder}")
    return 0


def run_name(identifier: str) -> str:
    """Return the manifest's name: "spheres.l_alpha.train" becomes "spheres-l_alpha-train"."""
    return identifier.replace(".", "-")


def manifest_text(experiment: dict[str, Any]) -> str:
    """Return a manifest as YAML, its corrections first."""
    lines = [f"# The published experiment {experiment['id']}."]
    for words in experiment.get("anomalies", []):
        kept = words.startswith(KEPT)
        lines += wrap(
            f"{'Kept' if kept else 'Corrected'}: {words}.",
            96,
            initial_indent="# ",
            subsequent_indent="#   ",
        )
    if experiment["dataset"] == "imagenet":
        lines += LEFT_OUT
    body = yaml.safe_dump(document(experiment), sort_keys=False, default_flow_style=None, width=100)
    return "\n".join(lines) + "\n" + body


def document(experiment: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of one experiment."""
    options = experiment.get("hyperparameters", {})
    method, dataset = experiment["method"], experiment["dataset"]
    found: dict[str, Any] = {"kind": "Alignment", "name": run_name(experiment["id"])}
    if method == "generator_cgan" and experiment["stage"] == "train":
        recipe = conditional_generator(experiment["recipe_inferred"])
        found |= {"stage": "conditional_generator", "data": {"name": dataset}}
        return found | {"conditional_generator": recipe}
    if method == "generator_vrgan" and experiment["stage"] == "train":
        found |= {"stage": "generator", "data": data(dataset)}
        return found | {"generator": direct_generator(options)}
    training = experiment["stage"] == "train"
    found |= {"stage": "classifier" if training else "evaluation", "data": data(dataset)}
    source = delta_x(experiment, options)
    if training and method != "l_alpha":
        source = {"source": "none"}
    found["delta_x"] = source
    if training:
        return found | {"training": classifier(experiment, options)}
    if method in ("generator_vrgan", "generator_cgan"):  # how good is the estimate of delta-x?
        return found | {"evaluation": {}}
    if dataset == "imagenet":
        found["weights"] = {"uri": "imagenet.safetensors"}
    else:
        found["weights"] = run_name(experiment["checkpoints"]["classifier"]["intended_source"])
    evaluation: dict[str, Any] = {"attacks": [curve(options)]}
    if options.get("test_hypothesis_linearity"):
        evaluation["linearity"] = True
    return found | {"evaluation": evaluation}


def data(dataset: str) -> dict[str, Any]:
    """Return the data section; what is private, or large, is read from folders."""
    if dataset == "copd":
        place = {"root": "copd", "table": "copd.csv", "target": "fev1_fvc", "subject": "subject"}
        return {
            "name": "folder",
            "folder": {**place, "validation": "validation.txt", "test": "test.txt"},
        }
    if dataset == "imagenet":
        return {"name": "imagenet", "split": "validation"}
    return {"name": dataset}


def delta_x(experiment: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return where the experiment's delta-x comes from."""
    generator = experiment["checkpoints"].get("generator")
    if generator is None:
        exact = experiment["dataset"] in ("spheres", "squares")
        return {"source": "exact" if exact else "none"}
    found: dict[str, Any] = {"generator": run_name(generator["intended_source"])}
    if experiment["pipeline"] == "direct":
        return {"source": "direct", **found}
    projection = {
        "initial_steps": options["get_z_init_iter"],
        "initial_lr": options["get_z_init_lr"],
        "steps": options["get_z_iter"],
        "lr": options["get_z_lr"],
        "penalty": options["get_z_penalty"],
    }
    return {"source": "projected", **found, "projection": projection}


def classifier(experiment: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return how a classifier was trained."""
    direct = experiment["pipeline"] == "direct"
    sgd = options.get("optimizer_type") == "sgd"
    betas = [0.0, 0.9] if direct else [0.5, 0.999]
    optimizer: dict[str, Any] = {"name": "sgd" if sgd else "adam", "lr": options["learning_rate_d"]}
    optimizer |= {"momentum": options["optimizer_momentum"]} if sgd else {"betas": betas}
    found: dict[str, Any] = {
        "method": experiment["method"],
        "optimizer": optimizer,
        "batch_size": options["batch_size" if direct else "batch_size_train"],
        "epochs": options["nepochs"],
        "steps_per_epoch": options["total_iters_per_epoch"] if direct else None,
        "batch_norm": "frozen" if options.get("deactivate_bn", True) else "updated",
        "selection": "published",
        "validation": curve(options),
    }
    if experiment["dataset"] == "cifar10":
        found["selection_start"] = 34  # epochs 33 .. 100, counted from 0
    if experiment["method"] == "l_alpha":
        found["penalty"] = options["lambda_penalty"]
    if experiment["method"] == "pgd":
        norm = {"inf": "linf", "l2": "l2"}[options["attack_to_use_training"]]
        step = round(0.02 * options["alpha_multiplier"], 10)
        eps = options["epsilon_attack_training"]
        found["attack"] = {
            "norm": norm,
            "eps": eps,
            "step_size": step,
            "steps": options["k_steps_attack"],
        }
    return found


def curve(options: dict[str, Any]) -> dict[str, Any]:
    """Return the attack of a curve."""
    eps = options["epsilons_val_attack"]
    if options["blackbox_attack"]:
        return {"attack": "square", "eps": eps}
    if options["attack_to_use_val"] == "spatial":
        return {"attack": "stadv", "eps": eps}
    norm = {"inf": "linf", "l2": "l2"}[options["attack_to_use_val"]]
    step = round(0.02 * options["alpha_multiplier"], 10)
    return {
        "attack": "pgd",
        "norm": norm,
        "eps": eps,
        "step_size": step,
        "steps": options["k_steps_attack"],
    }


def direct_generator(options: dict[str, Any]) -> dict[str, Any]:
    """Return how a residual generator was trained."""
    return {
        "lr": options["learning_rate_g"],
        "batch_size": options["batch_size"],
        "epochs": options["nepochs"],
        "steps_per_epoch": options["total_iters_per_epoch"],
        "adversarial": options["lambda_g"],
        "length": options["lambda_regg"],
        "real": options["lambda_dx"],
        "fake": options["lambda_dxprime"],
        "downsamplings": options["unet_downsamplings"],
        "selection": "published",
    }


def conditional_generator(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return how a class-conditional generator was trained."""
    return {
        "channels": recipe["G_ch"],
        "latent": recipe["dim_z"],
        "batch_size": recipe["batch_size"],
        "critic_steps": recipe["num_D_steps"],
        "iterations": recipe["checkpoint_iteration_used"],
        "lr": recipe["G_lr"],
        "betas": [recipe["adam_beta1"], recipe["adam_beta2"]],
        "feature_matching": recipe["mh_fmloss_weight"],
        "hinge": recipe["mh_loss_weight"],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
