"""Generated from protos/ by scripts/protos. Do not edit."""
