"""Architectures, their catalogue, their cost, and their weights."""

from robustray.models import (
    catalogue,
    catalogue_cells,
    catalogue_composites,
    catalogue_directions,
    catalogue_quantised,
    catalogue_smoothing,
    catalogue_wide,
)
from robustray.models.convert import Conversion, convert_weights
from robustray.models.errors import ModelError, WeightsError
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
from robustray.models.weights import LoadReport, load_weights, save_weights

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
    "catalogue",
    "catalogue_cells",
    "catalogue_composites",
    "catalogue_directions",
    "catalogue_quantised",
    "catalogue_smoothing",
    "catalogue_wide",
    "convert_weights",
    "create_model",
    "find_model",
    "list_models",
    "load_weights",
    "profile",
    "save_weights",
]
