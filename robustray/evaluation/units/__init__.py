"""Units of an evaluation: a range of images under one attack, computed and committed once."""
