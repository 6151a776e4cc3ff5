"""Figures of mixed classifiers."""
