"""What all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The machine's speed is no property of the code: no example fails for being slow.
settings.register_profile("default", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def project() -> Path:
    """The folder of the project, with setup.py in it."""
    return Path(__file__).resolve().parent.parent
