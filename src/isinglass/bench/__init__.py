"""Benches: many runs, which of them are left, how they are performed, and their records."""
