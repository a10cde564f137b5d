"""Which channels of a generator live and die together, the proof of it, and their removal."""
