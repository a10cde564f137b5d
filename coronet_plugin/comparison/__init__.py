"""``coronet compare``: runs side by side on one HTML page, from the files that train.py and test.py left."""
