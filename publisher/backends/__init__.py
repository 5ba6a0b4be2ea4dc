"""Where a release goes: the Backend protocol and what implements it."""
