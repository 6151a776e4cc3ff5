"""Configuration files of the published systems, read as manifests of ours."""
