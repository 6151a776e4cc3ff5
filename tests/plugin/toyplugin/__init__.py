"""What a user may bring to robustray."""
