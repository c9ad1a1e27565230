"""Turn a user's own files into a task and its examples.

    tables (columns as they are written) -> rows (complete examples) -> labels (kind and names) -> task -> holdout (dev set)

A guess is made only where one choice is sensible, and a note says so. Where several are sensible, an error lists them.
"""
