"""A booking desk with one tool for each effect; docs/how-to/effects.md says which to choose.

The desk keeps its payments and letters in files beside its configuration, to have something that is
neither a database nor a service.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import heartbit
from heartbit import ToolContext, ToolError

PAYMENTS = Path("payments")
LETTERS = Path("letters.txt")


@heartbit.tool(effect="pure")
def price(nights: int) -> str:
    """Look up what a room costs."""
    return f"{nights * 90} EUR"


@heartbit.tool(effect="transactional", timeout_seconds=10)
def book_room(room: str, guest: str, context: ToolContext) -> str:
    """Book a room: a row in the desk's own table."""
    booked = context.connection.execute("select guest from bookings where room = %s", [room])
    if booked.fetchone():
        raise ToolError(f"Room {room} is taken.")
    context.connection.execute(
        "insert into bookings (room, guest, guest_key) values (%s, %s, %s)",
        [room, guest, context.prepared],
    )
    return f"Room {room} is booked for {guest}."


@book_room.prepare
async def guest_key(guest: str) -> str:
    """Ask a service who this is: before the transaction, which must wait for nobody."""
    return hashlib.sha256(guest.encode()).hexdigest()[:8]


@heartbit.tool(effect="idempotent")
def pay(guest: str, euros: int, context: ToolContext) -> str:
    """Charge a guest: whoever takes the money refuses to take it twice under one key."""
    PAYMENTS.mkdir(exist_ok=True)
    payment = PAYMENTS / context.idempotency_key.replace("/", "-")
    payment.write_text(f"{guest} {euros}\n")
    return f"{guest} has paid {euros} EUR."


@heartbit.tool(on_doubt="ask_human")
def send_letter(guest: str, room: str) -> str:
    """Send a letter: once sent, it is sent."""
    with LETTERS.open("a") as letters:
        letters.write(f"{guest} {room}\n")
    return f"The letter to {guest} is sent."


@send_letter.probe
def letter_was_sent(guest: str, room: str) -> str | None:
    """Look whether the letter has gone out, when the worker that was to send it is lost."""
    sent = LETTERS.exists() and f"{guest} {room}\n" in LETTERS.read_text()
    return f"The letter to {guest} is sent." if sent else None
