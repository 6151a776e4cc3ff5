"""Networks of other libraries: one adapter for each, under the prefix of its names."""
