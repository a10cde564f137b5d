"""``coronet export``: a generator as a file that an edge runtime loads, checked to compute the same."""
