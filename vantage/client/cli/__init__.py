"""The commands that talk to a server. One file per noun; nothing heavy is imported before a command runs."""
