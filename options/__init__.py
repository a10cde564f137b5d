"""Command-line options of train.py and test.py."""
