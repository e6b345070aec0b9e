"""Where Celery finds the app of this repository: `celery -A celery_app worker`."""

from heartbit.celery import app

__all__ = ["app"]
