"""Checkpoints, their families, and where they come from."""
