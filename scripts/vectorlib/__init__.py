"""What scripts/vectors makes tests/vectors of."""
