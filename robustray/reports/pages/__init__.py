"""The pages of runs: one module for each kind, and the tables and drawings they share."""
