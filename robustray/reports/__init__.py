"""Reports of a study: canonical tables, frontiers, figures, an HTML page and a text table.

Input are plain rows; where they come from is not this package's business.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
