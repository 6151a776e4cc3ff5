"""Networks whose gradients are another's than their answers': for parts without useful ones."""
