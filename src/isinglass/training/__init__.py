"""Training: from settings to a trained and scored model."""
