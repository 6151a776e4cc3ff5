"""The audit of an evaluation: whether its numbers can be believed."""
