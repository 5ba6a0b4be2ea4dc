"""Repositories in buckets of S3-compatible object stores; the only part that talks to such a server."""
