"""Checks over values; each returns findings, none changes anything."""
