"""Picture files: reading them alike everywhere, looking a data set over, padding, making pairs.

The bundled host trains and tests on what :mod:`~coronet_plugin.pictures.reading` reads; evaluation and export
read with it too, so that what they hold a generator against is what the generator was shown.
"""
