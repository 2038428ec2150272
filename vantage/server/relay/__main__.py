"""``python -m vantage.server.relay``: the relay without the rest of the command line."""

from vantage.server.relay.cli import relay

if __name__ == "__main__":
    relay(prog_name="vantage relay")
