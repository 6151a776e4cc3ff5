from .architectures.robust_block import RobustResBlock
from .counting import Profile, profile
from .declared import InputFacts, declared_input
from .registry import (
    Entry,
    ModelError,
    Paper,
    create_model,
    find_model,
    list_models,
)
from .weights.convert import Conversion, convert_weights
from .weights.files import LoadReport, WeightsError, load_weights, save_weights

__all__ = [
    "Conversion",
    "Entry",
    "InputFacts",
    "LoadReport",
    "ModelError",
    "Paper",
    "Profile",
    "RobustResBlock",
    "WeightsError",
    "convert_weights",
    "create_model",
    "declared_input",
    "find_model",
    "list_models",
    "load_weights",
    "profile",
    "save_weights",
]
