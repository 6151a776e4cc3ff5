"""A fit of robust accuracy against cost and how stages share it: what finished networks suggest."""
