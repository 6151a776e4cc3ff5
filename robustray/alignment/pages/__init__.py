"""Figures and pages of gradient alignment, and what was published of it."""
