"""``coronet export-upstream``: a generator as one Python file and its weights, for whoever has no plug-in."""
