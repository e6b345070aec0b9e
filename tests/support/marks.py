"""Marks for some of the cases of a test."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any) -> list[Any]:
    """Cases that `make test` runs and `make check` leaves out: another one holds the promise."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
