"""The jobs of gradient alignment (manifests of kind Alignment)."""
