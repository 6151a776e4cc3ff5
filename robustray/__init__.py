"""robustray: how robust is this model, really, and what made it so."""

__version__ = "0.1.0"
