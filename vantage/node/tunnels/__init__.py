"""Tunnels: streams of bytes between runs at different nodes, sealed from node to node, over relays."""
