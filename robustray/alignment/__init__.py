"""Alignment of a classifier's gradient with delta-x, the way to the closest other class.

>>> alignment(gradient, delta_x)                                # doctest: +SKIP
>>> epsilon_50(eps, errors, form="corrected")                   # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
