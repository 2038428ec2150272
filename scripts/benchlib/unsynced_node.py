"""A node whose journal does not wait for the disk; otherwise ``vantage node``."""

from vantage.node import journal
from vantage.node.cli import node

if __name__ == "__main__":
    journal.SYNCHRONOUS = "OFF"
    node()
