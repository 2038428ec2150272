"""Proves the box from inside: a probe is started just as a run, and tries to get out."""
