"""Weights: files of every layout, matched to a network by its names and shapes."""
