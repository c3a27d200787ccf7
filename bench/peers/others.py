"""What others wrote and we are held against: installed for these benchmarks alone.

.venv/bin/python -m pip install --require-hashes --no-deps -r requirements-peers.lock
"""

import warnings
from typing import Any, Final

import pytest

INSTALL: Final = (
    ".venv/bin/python -m pip install --require-hashes --no-deps -r requirements-peers.lock"
)


def installed(module: str) -> Any:
    """The module, or the benchmark is skipped and says how to get it. What it warns of while it is
    imported is its own.
    """
    reason = f"{module.partition('.')[0]} is not installed: {INSTALL}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, reason=reason, exc_type=ImportError)
