"""How many workers, where, and with what: resources of a manifest against those of the cluster."""

from __future__ import annotations

import os

import torch

from robustray.manifest import Resources


def may_use_cpus(resources: Resources, assume_yes: bool) -> bool:
    """Whether CPUs do where there is no GPU: also where the manifest asks for no number of them."""
    return assume_yes or "gpus" not in resources.model_fields_set


def on_gpu(resources: Resources) -> bool:
    """Whether workers compute on a GPU."""
    return resources.gpus > 0 and not os.environ.get("ROBUSTRAY_DEVICE", "").startswith("cpu")


def expected_on_gpu(resources: Resources) -> bool:
    """Whether workers would compute on a GPU, as far as that is known before Ray is asked.

    A cluster (``RAY_ADDRESS``) is taken to have what the manifest asks for; a Ray that would be
    started here has what torch finds here.
    """
    somewhere = bool(os.environ.get("RAY_ADDRESS")) or torch.cuda.is_available()
    return on_gpu(resources) and somewhere
