"""Figures and pages of mixed classifiers."""
