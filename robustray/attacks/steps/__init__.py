"""What the steps of attacks are made of: searches, projections, norms."""
