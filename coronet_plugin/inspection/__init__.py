"""``coronet inspect``: the channel sets of any generator as a table, a picture and data."""
