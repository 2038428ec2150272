"""Hosts that algorithms may be connected with: none, unless the policy lists them."""
