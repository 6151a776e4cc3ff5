"""An attack."""

from dataclasses import replace

from robustray.attacks import fgsm


def half_step(model, x, y, threat, *, rng=None, index=None, share: float = 0.5):
    """FGSM that goes a share of the way."""
    return fgsm(model, x, y, replace(threat, eps=share * threat.eps), rng=rng, index=index)
