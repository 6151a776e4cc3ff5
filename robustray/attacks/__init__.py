"""Attacks, threat models and suites: how robust a classifier is, example by example.

>>> threat = ThreatModel(norm="linf", eps=8 / 255)
>>> result = evaluate(model, x, y, threat, suite="pgd-20")      # doctest: +SKIP
>>> result.robust_accuracy                                      # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
