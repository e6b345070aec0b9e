"""For whom a run is, as far as a caller may say it."""

from __future__ import annotations

from typing import Any

import pytest

from heartbit.core.owner import Owner
from heartbit.errors import ConfigError


def test_an_owner_is_what_the_caller_says() -> None:
    owner = Owner(tenant_id="acme", user_id="ann@acme.org", priority=-3)
    assert ("acme", "ann@acme.org", -3) == (owner.tenant_id, owner.user_id, owner.priority)
    assert (None, None, 0) == (Owner().tenant_id, Owner().user_id, Owner().priority)


@pytest.mark.parametrize("value", ["", 7, "a\0b", "a\nb", "\ud800", "x" * 257, ["a"], b"a"])
@pytest.mark.parametrize("name", ["tenant_id", "user_id"])
def test_an_id_that_cannot_be_stored_or_read_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be printable text"):
        Owner(**{name: value})


@pytest.mark.parametrize("value", [1001, -1001, 1.5, "1", True, None])
def test_a_priority_is_a_whole_number_in_its_range(value: Any) -> None:
    with pytest.raises(ConfigError, match="priority must be a whole number from -1000 to 1000"):
        Owner(priority=value)
