"""Trained runs by name, and the one way from a path to a generator."""
