"""Networks by name: their options, their cost, and their weights."""

from robustray.errors import ModelError, WeightsError

# isort: split
from robustray.models import catalogue as catalogue  # registers the networks

# isort: split
from robustray.models.profile import Profile, profile
from robustray.models.registry import (
    Entry,
    Paper,
    PublishedCost,
    PublishedWeights,
    create_model,
    find_model,
    list_models,
)
from robustray.models.weights.convert import Conversion, convert_weights
from robustray.models.weights.files import LoadReport, load_weights, save_weights

__all__ = [
    "Conversion",
    "Entry",
    "LoadReport",
    "ModelError",
    "Paper",
    "Profile",
    "PublishedCost",
    "PublishedWeights",
    "WeightsError",
    "convert_weights",
    "create_model",
    "find_model",
    "list_models",
    "load_weights",
    "profile",
    "save_weights",
]
