"""Inference: what reads weights. Samples, accuracies, rankers, votes."""
