"""Which memories belong together, and what a model is asked to make of them.

Pure. Memories are put together by their keywords: what has none stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from heartbit.core.memory import Memory

CLUSTER_OVERLAP = 0.3
LINK_OVERLAP = 0.2
SUMMARY_TOKENS = 512
SYSTEM_PROMPT = (
    "You condense an agent's memories. Write one short text that keeps every fact, number, name "
    "and date of the memories you are given, each once, and adds nothing. Answer with that text "
    "alone."
)


def overlap(one: Collection[str], other: Collection[str]) -> float:
    """How much two lists of keywords have in common, from 0 to 1 (Jaccard), whatever their case."""
    first, second = ({each.casefold() for each in words} for words in (one, other))
    together = first | second
    return len(first & second) / len(together) if together else 0.0


def clusters(
    memories: Sequence[Memory], *, min_overlap: float = CLUSTER_OVERLAP
) -> list[list[Memory]]:
    """Groups of two or more memories, each linked to another of its group by its keywords.

    A memory is in one group at most; groups and their members keep the order of `memories`.
    """
    groups: list[list[Memory]] = []
    for memory in memories:
        near = [
            group
            for group in groups
            if any(overlap(memory.keywords, each.keywords) >= min_overlap for each in group)
        ]
        if not near:
            groups.append([memory])
            continue
        near[0].append(memory)
        for group in near[1:]:
            near[0].extend(group)
            groups.remove(group)
    place = {memory.id: number for number, memory in enumerate(memories)}
    return [sorted(each, key=lambda one: place[one.id]) for each in groups if len(each) > 1]


def prompt(memories: Sequence[Memory]) -> str:
    """The memories of a group, as a model is shown them."""
    return "\n".join(f"- {memory.content}" for memory in memories)


def merged(lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """All words of several lists, each once."""
    return tuple(dict.fromkeys(word for words in lists for word in words))
