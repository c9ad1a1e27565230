"""Runs: performed in one call, kept in a directory, loaded and used."""
