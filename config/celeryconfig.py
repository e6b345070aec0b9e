"""Celery's settings as heartbit recommends them, each with its reason.

`celery -A heartbit` uses these values by itself. This file is for two cases:

- An app of your own: app.config_from_object("celeryconfig"), or take over what you need.
- Other values for `celery -A heartbit`: put a copy where Python finds it, change it, and name the
  module in $HEARTBIT_CELERY_CONFIG.

Broker and result backend are not here: they come from $CELERY_BROKER_URL and
$CELERY_RESULT_BACKEND, or from [celery] of heartbit.toml. Queues and routes are not here either:
heartbit.install(app) adds them. heartbit's own tasks have what they rely on (late acknowledgement,
JSON, what is stored of their results) as options of their own, so none of these settings is needed
for runs to survive.
"""

# ---- Delivery ------------------------------------------------------------------------------------

# A message is acknowledged after the work, so that a worker that dies does not take it along.
task_acks_late = True
# The same for a child of the prefork pool that is killed, by the kernel's OOM killer for example.
task_reject_on_worker_lost = True
# A worker takes what it can work on now; the rest stays in the queue for others.
worker_prefetch_multiplier = 1
# After a lost connection, work goes on: a copy of the message that comes back meanwhile is dropped
# by the journal. Cancelling would throw away model calls that are paid for.
worker_cancel_long_running_tasks_on_connection_loss = False
# With Celery's own consumer, a worker can end when Redis goes away while it has work under way.
worker_consumer = "heartbit.consumer:Consumer"
# After so many seconds of a shutdown, warm or cold, model turns and calls that may be repeated are
# handed to other workers at once; a call that must not be repeated is finished. 0: wait for all.
worker_soft_shutdown_timeout = 30.0
# Also for messages that wait for their time (eta, retry) while nothing runs.
worker_enable_soft_shutdown_on_idle = True

# ---- Connections ---------------------------------------------------------------------------------

# One connection pool for results that all threads share; needed with -P threads and gevent.
result_backend_thread_safe = True
# A worker that starts before its broker waits for it ...
broker_connection_retry_on_startup = True
# ... and one that loses its broker never gives up. The default ends the worker after 100 attempts.
broker_connection_max_retries = None
broker_transport_options = {
    # Redis gives a message that nobody acknowledged to another worker after this many seconds.
    # Leases in the journal notice a dead worker much sooner, so this may be long.
    "visibility_timeout": 3600,
    # It is looked for such messages every interval x throttle seconds; the default is 100.
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    # More than the worker's concurrency + 50: with the default of 10 acknowledgements fail.
    "max_connections": 600,
    # A connection that a firewall has dropped is noticed.
    "socket_keepalive": True,
    "health_check_interval": 30,
}

# ---- Messages ------------------------------------------------------------------------------------

# JSON only: a message that is unpickled can run any code.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]

# ---- Beat ----------------------------------------------------------------------------------------

# Starts the runs of [[daemon.schedules]], each time once however many beats there are, and serves
# the entries of beat_schedule as Celery's own scheduler does: those want one beat only.
beat_scheduler = "heartbit.beat:Scheduler"
# `celery inspect ping` reaches beat, too.
beat_enable_remote_control = True

# ---- What people see -----------------------------------------------------------------------------

# A task is shown as started while it is worked on. heartbit's own tasks don't take part: their
# messages may come twice, and the second must not undo a stored result.
task_track_started = True
# Flower and `celery events` see tasks from when they are sent ...
task_send_sent_event = True
# ... to when they end. Costs a little for each task; switch both off where nobody looks.
worker_send_task_events = True
# Standard output stays a real file: MCP servers over stdio are started with it.
worker_redirect_stdouts = False
