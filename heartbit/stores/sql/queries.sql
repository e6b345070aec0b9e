-- open_run --
-- Open a run, or tell what is stored under its id.
select heartbit_open_v1(%(run)s::json, %(definition)s::json, %(start)s::json, %(steps)s::json)

-- claim --
-- Take a step for a new attempt, with the events the caller does not know.
select heartbit_claim_v1(%(run_id)s, %(step)s, %(owner)s, %(lease_seconds)s, %(known)s)

-- append --
-- Compare and append.
select heartbit_append_v1(
    %(run_id)s, %(expected)s, %(step)s, %(attempt)s, %(verdict)s,
    %(event_steps)s::text[], %(types)s::text[], %(v)s, %(payloads)s::json[], %(steps)s::json,
    %(board_scopes)s::text[], %(board_keys)s::text[], %(board_values)s::json[],
    %(runs)s::json[], %(definitions)s::json[], %(starts)s::json[], %(run_steps)s::json[],
    %(status)s, %(output)s::json
)

-- events --
-- The events of a run after a number.
select heartbit_events_v1(%(run_id)s, %(after)s + 1)

-- run --
-- The row of a run.
select id, task_id, parent_run_id, root_run_id, step_in_parent, agent, status, output, completion,
       completion_done_at is not null as completion_done,
       cancel_requested_at is not null as cancel_requested
  from runs where id = %(run_id)s

-- take_dispatch --
-- Win the right to send steps that were never sent.
update steps
   set dispatched_at = heartbit_now(), dispatch_count = dispatch_count + 1
 where run_id = %(run_id)s and step = any(%(steps)s)
   and dispatched_at is null and state = 'pending'
returning step, queue

-- undispatched --
-- The steps of a run that were never sent.
select step from steps
 where run_id = %(run_id)s and dispatched_at is null and state = 'pending'
 order by step

-- set_completion --
-- Remember what waits for the end of a run.
update runs set completion = %(completion)s::json
 where id = %(run_id)s and completion is null

-- complete --
-- The end of a run has been published.
update runs set completion_done_at = heartbit_now()
 where id = %(run_id)s and completion_done_at is null

-- request_cancel --
-- Ask for the end of a run tree.
with asked as (
    update runs set cancel_requested_at = heartbit_now()
     where id = (select root_run_id from runs where id = %(run_id)s) and cancel_requested_at is null
)
select id from runs
 where root_run_id = (select root_run_id from runs where id = %(run_id)s)
   and status in ('queued', 'running', 'waiting')
 order by created_at

-- extend_leases --
-- Keep the leases of one process; gives those it still holds.
update steps
   set lease_expires_at = heartbit_now() + make_interval(secs => %(lease_seconds)s)
  from unnest(%(run_ids)s::uuid[], %(steps)s::text[], %(attempts)s::integer[])
       as held (run_id, step, attempt)
 where steps.run_id = held.run_id and steps.step = held.step and steps.attempt = held.attempt
   and steps.state = 'running'
returning steps.run_id, steps.step, steps.attempt

-- release --
-- Hand a step back that was not begun.
update steps
   set state = 'pending', lease_owner = null, lease_expires_at = null, dispatched_at = null,
       dispatch_after = heartbit_now()
 where run_id = %(run_id)s and step = %(step)s and attempt = %(attempt)s and state = 'running'

-- admit_sweep --
-- Win the right to sweep now: one process of the fleet per second.
insert into sweeps (name, at) values (%(name)s, heartbit_now())
on conflict (name) do update set at = heartbit_now()
 where sweeps.at < heartbit_now() - make_interval(secs => %(every_seconds)s)
returning name
