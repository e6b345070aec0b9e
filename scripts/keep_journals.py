"""Keep journals of today's rules for ever: `python -m scripts.keep_journals`, from the root.

Each goes into a file of tests/journals, named after the rules it was written by. A file that is
there is never written again: runs that began under it may still be under way somewhere.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

from heartbit.core.events import RULES_VERSION, Decision, Event
from tests.engines.scripts import SCRIPTS
from tests.support.bench import RUN, Bench, Died, calling
from tests.support.bench import SOLO as DOUBTFUL
from tests.support.engines import standalone
from tests.support.kept_journals import KEPT, kept

REPRESENTATIVE = (
    "parallel tool calls are answered in the order of the calls",
    "sequential dispatch runs one sub-agent at a time across all calls of a turn",
    "a squad shares a private blackboard and leaves its result on the outer one",
    "each call of a round is approved, denied or edited on its own",
    "an invalid structured answer is told every violation and corrected",
    "a summary takes the place of the middle, and of the summary before it",
    "a deadline stops the sub-runs too, and counts what they used",
    "at its end a run puts one memory in the place of several",
    "the same calls in any order are stopped after max_identical_tool_calls turns",
)


def main() -> int:
    """Write the journals that are not kept yet."""
    KEPT.mkdir(exist_ok=True)
    for name, journals in _journals():
        words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        path = KEPT / f"rules{RULES_VERSION}_{words}.json"
        if not path.exists():
            path.write_text(json.dumps(kept(name, journals), indent=1) + "\n")
            print(f"kept {path.name}")
    return 0


def _journals() -> Iterator[tuple[str, Mapping[str, Sequence[Event]]]]:
    for script in SCRIPTS:
        if script.name in REPRESENTATIVE:
            yield script.name, standalone(script).journals
    yield "a call in doubt is run again twice", {"": _doubted()}


def _doubted() -> Sequence[Event]:
    """Workers are lost in the same call twice, and a human has it run again each time."""
    bench = Bench(calling("fire", "look"), DOUBTFUL)
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    for _ in range(2):
        bench.die_in("1/tool/0")
        try:
            bench.deliver(("step", RUN, "1/tool/0"), bench.worker())
        except Died:
            bench.live()
        bench.later()
        bench.decide(Decision(position=0, verdict="approve"))
        bench.later(3)
        bench.outbox.messages = [m for m in bench.outbox.messages if m[2] != "1/tool/0"]
    bench.until_it_ends()
    return bench.journal.events(RUN)


if __name__ == "__main__":
    sys.exit(main())
