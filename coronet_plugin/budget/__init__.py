"""The cost a generator may have, which widths that allows, and the way there."""
