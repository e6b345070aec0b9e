"""What durable runs cost, on real servers and real workers: all parts, or only those named.

python -m benchmarks.durable                 # everything
python -m benchmarks.durable cpu takeover    # only these
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from benchmarks import (
    durable_crowd,
    durable_disk,
    durable_takeover,
    durable_turns,
    report,
    streaming,
)
from benchmarks.report import Found

PARTS: dict[str, Callable[[], list[Found]]] = {
    "cpu": durable_turns.measure,
    "disk": durable_disk.measure,
    "held": durable_crowd.measure_held,
    "waiting": durable_crowd.measure_waiting,
    "takeover": durable_takeover.measure,
    "streaming": streaming.measure,
}


def measure(chosen: Iterable[str] = ()) -> list[Found]:
    """The rows of some parts, or of all of them."""
    return [row for name in list(chosen) or PARTS for row in PARTS[name]()]


def main(chosen: list[str]) -> None:
    """Measure and show."""
    unknown = set(chosen) - set(PARTS)
    if unknown:
        sys.exit(f"No such part: {', '.join(sorted(unknown))}. There are: {', '.join(PARTS)}.")
    print(report.render(measure(chosen)))


if __name__ == "__main__":
    main(sys.argv[1:])
