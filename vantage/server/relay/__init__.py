"""Relays: tickets, pairing, and the program. Nothing here needs the server's database."""
