"""One module per subject; each has a list SCRIPTS."""

from __future__ import annotations

from tests.engines.scripts import delegation, loop
from tests.support.parity import Script

MODULES = (loop, delegation)
SCRIPTS: tuple[Script, ...] = tuple(script for module in MODULES for script in module.SCRIPTS)
