"""Runs on disk: performed with a lock and checkpoints, written, loaded and used."""
