"""A shop with a Celery app and tasks of its own, and heartbit's agents among them.

Start a worker for it, then send a ticket through the chain:

    celery -A shop worker -P threads -c 20
    python shop.py 4711
"""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery, chain

import heartbit
from heartbit.tasks import run_agent

app = Celery("shop", broker="redis://localhost:6379/0", backend="redis://localhost:6379/0")
app.conf.result_backend_thread_safe = True
heartbit.install(app)  # the app can now send and run agents; everything else of it is as before

TICKETS = {"4711": "The kettle I bought leaks. I want my money back."}


@app.task
def fetch_ticket(number: str) -> dict[str, str]:
    """A task of the shop that comes before the agent: what it returns is the agent's prompt."""
    return {"ticket": number, "text": TICKETS[number]}


@app.task
def email(output: dict[str, Any], to: str) -> str:
    """A task of the shop that comes after the agent, whenever that has ended."""
    return f"To {to}: {output['result']}"


def answer(number: str, to: str) -> Any:
    """Fetch a ticket, have the agent answer it, send the answer."""
    return chain(fetch_ticket.s(number), run_agent.s(agent="support"), email.s(to))()


@heartbit.tool(effect="pure")
def refund_rules(product: str) -> str:
    """What the shop promises about a product: a tool of the agent (see heartbit.toml)."""
    return f"A leaking {product} is refunded within two years."


if __name__ == "__main__":
    print(answer(*sys.argv[1:2], to="customer@example.com").get(timeout=60))
