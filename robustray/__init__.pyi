from .runtime.outcome import Outcome, run

__version__: str

__all__ = ["Outcome", "run"]
