"""One module per subject; each has a list SCRIPTS."""

from __future__ import annotations

from tests.engines.scripts import (
    approval,
    context,
    delegation,
    limits,
    loop,
    memory,
    profiles,
    structured,
)
from tests.support.parity import Script

MODULES = (loop, delegation, approval, structured, context, profiles, limits, memory)
SCRIPTS: tuple[Script, ...] = tuple(script for module in MODULES for script in module.SCRIPTS)
