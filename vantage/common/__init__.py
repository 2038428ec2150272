"""What all programs share: errors, names, clock, back-off, keys, channels."""
