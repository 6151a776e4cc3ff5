"""Its report: what a store has measured beside what was published."""
