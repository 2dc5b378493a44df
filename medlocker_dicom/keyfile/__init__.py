"""Identities, recovery packets, grants, key files: bytes in, bytes out."""
