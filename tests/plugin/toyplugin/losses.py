"""An objective."""

import torch.nn.functional as F

from robustray.training import Objective, Outcome


def _pair(model, x, y, x_adv, *, weight: float = 1.0):
    """Logits of adversarial images stay near those of clean ones, in the square."""
    clean, adversarial = model(x), model(x_adv)
    loss = F.cross_entropy(adversarial, y) + weight * F.mse_loss(adversarial, clean)
    return Outcome(loss, adversarial)


pairing = Objective(_pair, ascent="ce", forwards=2)
