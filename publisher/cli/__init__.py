"""The command line: one file a group of commands, thin; ``console`` is the only user of rich."""
