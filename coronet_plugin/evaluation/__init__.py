"""How good translated pictures are: likeness to a truth, and distances of distributions by protocol."""
