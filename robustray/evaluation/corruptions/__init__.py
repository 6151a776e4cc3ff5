"""Accuracy of networks on corrupted images, by corruption and severity: the kind Corruptions."""
