"""One folder for each backend; `protocol.py` says what they have in common."""
