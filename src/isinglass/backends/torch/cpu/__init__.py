"""Training and prediction on a CPU."""
