"""What a generator may cost, which widths that allows, and the way there."""
