"""Training: what makes weights."""
