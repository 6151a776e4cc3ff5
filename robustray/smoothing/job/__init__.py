"""The job that trains and judges a mixed classifier (manifests of kind Mixing)."""
