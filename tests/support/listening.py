"""A listener that writes down what it hears, in order."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Recorder:
    """Keeps what it heard: texts as they came, and restarts as ("restarted", reason)."""

    heard: list[str | tuple[str, str]] = field(default_factory=list)

    def text(self, delta: str) -> None:
        """Write down a text."""
        self.heard.append(delta)

    def restarted(self, reason: str) -> None:
        """Write down a restart."""
        self.heard.append(("restarted", reason))
