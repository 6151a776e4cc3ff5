"""The scaling study of robust residual networks: its rules, its networks, its published numbers.

Huang, Lu, Deb and Boddeti, "Revisiting residual networks for adversarial robustness" (2023).
"""
