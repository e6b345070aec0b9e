"""A journal that tells of its boundaries: what is about to be committed, and what has been.

A process that is killed between two of these leaves nothing else behind than one that is killed at
the first of them, so that killing it at each of them is all that can happen to it. Boundaries are
named by run and step, never counted: those of concurrent steps are the same ones in every run.

Nothing here kills anybody; whoever listens may.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

from heartbit.errors import RunNotFound
from heartbit.stores.journal import Append, Journal, NewRun
from heartbit.stores.records import Appended, RunRow

Edge = Literal["before", "after", "refused"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Boundary:
    """The moment before or after something is stored or sent; `refused`: it was not, after all.

    `place` is the run within its tree, by its agent's name and the step of its parent.
    """

    root_run_id: str
    place: str
    what: str
    edge: Edge


Reached = Callable[[Boundary], None]


class Places:
    """Where runs stand in their trees, as the journal knows it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def opens(self, run: NewRun) -> None:
        """A run that may not be in the journal yet."""
        place = place_of(run.definition.name, run.step_in_parent)
        with self._lock:
            self._known[run.run_id] = (run.root_run_id, place)

    def boundary(self, run_id: str, what: str, edge: Edge) -> Boundary | None:
        """The boundary of a run; None if there is no such run."""
        with self._lock:
            known = self._known.get(run_id)
        if known is None:
            try:
                row = self._journal.run(run_id)
            except RunNotFound:
                return None
            known = (row.root_run_id, place_of_row(row))
            with self._lock:
                self._known[run_id] = known
        root_run_id, place = known
        return Boundary(root_run_id=root_run_id, place=place, what=what, edge=edge)


def place_of(agent: str, step_in_parent: str | None) -> str:
    """A run's name within its tree."""
    return agent if step_in_parent is None else f"{agent} {step_in_parent}"


def place_of_row(row: RunRow) -> str:
    """A run's name within its tree."""
    return place_of(row.agent, row.step_in_parent)


class Boundaries:
    """Tells a listener what is about to happen to runs, and what has."""

    def __init__(self, places: Places, reached: Reached) -> None:
        self.places = places
        self._reached = reached

    def tell(self, run_id: str, what: str, edge: Edge) -> None:
        """One boundary, if the run exists."""
        boundary = self.places.boundary(run_id, what, edge)
        if boundary is not None:
            self._reached(boundary)

    def tell_all(self, run_id: str, whats: Sequence[str], edge: Edge) -> None:
        """The boundary of several things that are stored together."""
        for what in whats:
            self.tell(run_id, what, edge)

    def around(self, run_id: str, whats: Sequence[str], commit: Callable[[], Any]) -> Any:
        """Both boundaries of a commit, and what it gives."""
        self.tell_all(run_id, whats, "before")
        try:
            given = commit()
        except Exception:
            self.tell_all(run_id, whats, "refused")
            raise
        self.tell_all(run_id, whats, "after" if is_stored(given) else "refused")
        return given


def is_stored(given: Any) -> bool:
    """Whether what a method of the journal gives says that it has changed something."""
    if isinstance(given, Appended):
        return given.ok
    if hasattr(given, "why_not"):
        return given.why_not is None
    return getattr(given, "opened", True) and given != ()


def names_of_append(append: Append) -> list[str]:
    """What an append is called: by the steps that it ends, or by what has happened.

    Outcomes that come at the same instant may be stored together, or one after the other.
    """
    verb = "verdict" if append.verdict else "append"
    first = append.step or append.events[0].step or append.events[0].type
    return [f"{verb} {step}" for step in (first, *(step for step, _ in append.beside))]


# Every method that stores something about one run, and what that is called. What the sweep hands
# out is left out: that depends on the time that has passed.
COMMITS: Mapping[str, Callable[..., tuple[str, Sequence[str]]]] = {
    "append": lambda append: (append.run_id, names_of_append(append)),
    "claim": lambda run_id, step, **_: (run_id, [f"claim {step}"]),
    "release": lambda run_id, step, attempt, **_: (run_id, [f"release {step}"]),
    "put_off": lambda run_id, step, attempt, **_: (run_id, [f"put off {step}"]),
    "take_dispatch": lambda run_id, steps, **_: (run_id, [f"dispatch {', '.join(sorted(steps))}"]),
    "set_completion": lambda run_id, completion: (run_id, ["note who waits"]),
    "complete": lambda run_id: (run_id, ["complete"]),
    "decide": lambda run_id, step, decisions, **_: (run_id, [f"decide {step}"]),
    "request_cancel": lambda run_id, **_: (run_id, ["cancel"]),
    "set_timer": lambda run_id, what, seconds: (run_id, [f"timer {what}"]),
    "clear_timer": lambda run_id, what: (run_id, [f"no timer {what}"]),
}


class _ChaosJournal:
    """Everything that is not told of is the journal's own."""

    def __init__(self, journal: Journal, boundaries: Boundaries) -> None:
        self._journal = journal
        self._boundaries = boundaries

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._journal, name)
        describe = COMMITS.get(name)
        return method if describe is None else partial(self._commit, describe, method)

    def open_run(self, run: NewRun) -> Any:
        self._boundaries.places.opens(run)
        return self._boundaries.around(run.run_id, ["open"], lambda: self._journal.open_run(run))

    def transaction(self) -> AbstractContextManager[Any]:
        return self._watched(self._journal.transaction())

    def tool_transaction(
        self, seconds: float | None = None, *, quick: bool = False
    ) -> AbstractContextManager[Any]:
        return self._watched(self._journal.tool_transaction(seconds, quick=quick))

    @contextmanager
    def _watched(self, transaction: AbstractContextManager[Any]) -> Iterator[Any]:
        watched = _WatchedTransaction(self._boundaries)
        with transaction as watched.inner:
            yield watched
            watched.about_to_commit()
        watched.committed()

    def _commit(
        self,
        describe: Callable[..., tuple[str, Sequence[str]]],
        method: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        run_id, whats = describe(*args, **kwargs)
        return self._boundaries.around(run_id, whats, lambda: method(*args, **kwargs))


class _WatchedTransaction:
    """A transaction is named after its first append: that of the run whose outcome it stores."""

    inner: Any

    def __init__(self, boundaries: Boundaries) -> None:
        self._boundaries = boundaries
        self._first: tuple[str, Sequence[str]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def append(self, append: Append) -> Appended:
        if self._first is not None:
            return cast(Appended, self.inner.append(append))
        run_id, whats = append.run_id, names_of_append(append)
        self._boundaries.tell_all(run_id, whats, "before")
        try:
            appended: Appended = self.inner.append(append)
        except Exception:
            self._boundaries.tell_all(run_id, whats, "refused")
            raise
        if appended.ok:
            self._first = run_id, whats
        else:
            self._boundaries.tell_all(run_id, whats, "refused")
        return appended

    def about_to_commit(self) -> None:
        if self._first is not None:
            run_id, whats = self._first
            self._boundaries.tell_all(run_id, [f"commit {what}" for what in whats], "before")

    def committed(self) -> None:
        if self._first is not None:
            self._boundaries.tell_all(*self._first, "after")


def watched_journal(journal: Journal, boundaries: Boundaries) -> Journal:
    """The same journal, with its boundaries told."""
    return cast(Journal, _ChaosJournal(journal, boundaries))
