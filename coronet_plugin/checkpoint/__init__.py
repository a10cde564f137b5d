"""Generators on disk: weights, the spec beside them, files of strangers and of upstream."""
