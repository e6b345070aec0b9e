"""The public names of heartbit are sorted, really there, and cheap to import."""

from __future__ import annotations

import subprocess
import sys

import heartbit

HEAVY = ("celery", "kombu", "psycopg", "redis", "mcp", "httpx2", "pydantic")


def test_all_is_sorted_and_complete() -> None:
    """`__all__` is what a reader of the package sees, in order and without repetition."""
    assert sorted(set(heartbit.__all__)) == heartbit.__all__


def test_every_public_name_is_there() -> None:
    """Each name of `__all__` can be fetched."""
    assert [] == [name for name in heartbit.__all__ if getattr(heartbit, name, None) is None]


def test_heartbit_has_no_attribute_that_celery_takes_for_an_app() -> None:
    """`celery -A heartbit` has to find the module heartbit.celery, not something else."""
    code = (
        "import heartbit; assert not hasattr(heartbit, 'app') and not hasattr(heartbit, 'celery')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_importing_heartbit_loads_nothing_heavy() -> None:
    """Neither Celery nor a database driver nor an HTTP client comes with the bare import."""
    code = f"import sys, heartbit; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert "[]" == done.stdout.strip()
