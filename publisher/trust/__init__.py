"""Verification of what was published."""
