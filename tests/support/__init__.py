"""What the tests of several rooms use."""

from pathlib import Path

import pytest

#: The top of the repository.
ROOT = Path(__file__).parent.parent.parent

# As tests name what pytest hands them.
Caplog = pytest.LogCaptureFixture
Patch = pytest.MonkeyPatch
