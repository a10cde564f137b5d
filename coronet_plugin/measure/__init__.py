"""Measurements on this machine: the time and memory a generator takes, and where they go."""
