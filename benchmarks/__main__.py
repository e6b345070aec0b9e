"""Run the benchmarks: all of them, which writes the README's table, or only the parts named.

python -m benchmarks                    # what `make bench` calls
python -m benchmarks turns startup      # only shown
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import durable, knowledge, memory, report, startup, turns, waiting
from benchmarks.report import Found

PARTS: dict[str, Callable[[], list[Found]]] = {
    "turns": turns.measure,
    "waiting": waiting.measure,
    "memory": memory.measure,
    "knowledge": knowledge.measure,
    "startup": startup.measure,
    "durable": durable.measure,
}


def main(chosen: list[str]) -> None:
    """Measure and show; write if nothing was left out."""
    unknown = set(chosen) - set(PARTS)
    if unknown:
        sys.exit(f"No such part: {', '.join(sorted(unknown))}. There are: {', '.join(PARTS)}.")
    found = [row for name in chosen or PARTS for row in PARTS[name]()]
    text = report.render(found)
    print(text)
    if not chosen:
        report.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
