from .networks import ScaledNetwork, scale
from .ratios import RULES, Rule

__all__ = ["RULES", "Rule", "ScaledNetwork", "scale"]
