"""Training and prediction on an NVIDIA GPU."""
