"""Its tables and figures."""
