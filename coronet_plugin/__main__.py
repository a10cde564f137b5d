"""``python -m coronet_plugin``: runs a host's script if one is named, otherwise the ``coronet`` command."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """The exit code of ``arguments``, whose first decides: a ``.py`` file is run, all else is a command."""
    if arguments and arguments[0].endswith(".py"):
        from coronet_plugin.checkout import runner

        return runner.main(arguments)
    from coronet_plugin import cli

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
