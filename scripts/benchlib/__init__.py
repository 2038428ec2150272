"""What scripts/bench measures, and the ceilings that it measures against."""
