"""Celery settings of the benchmarks' workers: as shipped, without task events."""

worker_send_task_events = False
task_send_sent_event = False
