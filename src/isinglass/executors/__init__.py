"""Executors: where runs are performed, in processes of this machine or on a Ray cluster."""
