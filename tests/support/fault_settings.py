"""Celery settings for workers of the fault tests: logs with names, and `$FAULT_SETTINGS`."""

from __future__ import annotations

import json
import os

worker_log_format = "%(levelname)s|%(name)s|%(message)s"
worker_task_log_format = worker_log_format
locals().update(json.loads(os.environ.get("FAULT_SETTINGS", "{}")))
