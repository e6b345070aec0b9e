"""heartbit: the runtime that makes LLM agents durable on Celery."""

__version__ = "0.1.0"
