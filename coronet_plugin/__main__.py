"""``python -m coronet_plugin``: the same as the ``coronet`` command.

A first argument that ends in ``.py`` is reserved for running a host's script.
"""

from __future__ import annotations

import sys

from coronet_plugin import cli

if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:]))
