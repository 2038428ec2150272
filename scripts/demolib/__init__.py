"""What ``scripts/demo`` does once the machine has what it needs."""
