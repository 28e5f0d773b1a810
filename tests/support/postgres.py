"""Whether tests may start a PostgreSQL."""

import os

import pytest

from tablehouse.errors import SetupError
from tablehouse.testing.postgres import program


def require_postgres() -> None:
    """Skip the test where PostgreSQL is not installed, which continuous integration does not allow."""
    try:
        program("initdb")
    except SetupError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
