"""Long jobs of several epochs that are no trial of a sweep: mixing networks, alignment."""
