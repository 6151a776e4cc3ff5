"""The command line: plans, runs, evaluations, audits, reports, and the catalogue of networks."""

from robustray.cli.main import main

__all__ = ["main"]
