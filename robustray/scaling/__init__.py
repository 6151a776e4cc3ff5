"""The scaling study of robust residual networks: its rules, its networks, its published numbers.

Huang, Lu, Deb and Boddeti, "Revisiting residual networks for adversarial robustness" (2023).

>>> scale("preact_resnet", 5e9, arguments={"block": "robust"})  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
