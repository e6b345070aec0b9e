"""The billing department's Celery app: a code base of its own that knows nothing of heartbit.

celery -A billing worker -Q billing
"""

from __future__ import annotations

from celery import Celery

app = Celery("billing", broker="redis://localhost:6379/0", backend="redis://localhost:6379/0")
app.conf.task_default_queue = "billing"

OPEN_INVOICES = {"4711": {"customer": "Ada", "amount": 120.5}}


@app.task
def lookup_invoice(number: str) -> dict[str, object]:
    """Find an invoice that is not paid."""
    return {"number": number, **OPEN_INVOICES[number]}


@app.task
def remind(number: str, tone: str = "friendly") -> str:
    """Send a reminder."""
    if tone != "friendly":
        raise ValueError(f"We never write a {tone} letter.")
    return f"Invoice {number}: a {tone} reminder is on its way."
