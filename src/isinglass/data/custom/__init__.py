"""Make a task and its examples of the user's own files (`files`) or lists in memory (`memory`).

    files -> tables (columns, as they are written) -> examples (complete, with their places) -> labels -> task, dev split

What is guessed has one sensible choice, and stands in the notes; what has several is a mistake that names the options.
"""
