"""Families of generators: how each is built, fed, recognised by its weights and written down."""
