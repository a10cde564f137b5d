"""Pictures, folders and videos through a trained generator: ``coronet translate``.

Whatever a generator was read from (:mod:`~coronet_plugin.translation.source`), it is used alike: pictures are
read as people see them, brought to a size it takes, translated whole or in tiles, and cut back.
"""
