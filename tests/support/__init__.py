"""What the tests of several rooms use."""

from pathlib import Path

#: The top of the repository.
ROOT = Path(__file__).parent.parent.parent
