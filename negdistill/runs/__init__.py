"""Runs: folders that say what they were made from, whole files, processes that work together."""
