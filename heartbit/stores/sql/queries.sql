-- open_run --
-- Open a run, or tell what is stored under its id.
select heartbit_open_v1(%(run)s::json, %(definition)s::json, %(start)s::json, %(steps)s::json)

-- fork --
-- Open a run with the beginning of another one's journal, or tell what is stored under its id.
select heartbit_fork_v1(
    %(run)s::json, %(definition)s::json, %(start)s::json, %(steps)s::json, %(origin)s, %(kept)s
)

-- claim --
-- Take a step for a new attempt, with the events the caller does not know.
select heartbit_claim_v1(
    %(run_id)s, %(step)s, %(owner)s, %(lease_seconds)s, %(known)s, %(doubt)s
)

-- append --
-- Compare and append.
select heartbit_append_v1(
    %(run_id)s, %(expected)s, %(step)s, %(attempt)s, %(verdict)s, %(park)s,
    %(event_steps)s::text[], %(types)s::text[], %(v)s, %(payloads)s::json[], %(steps)s::json,
    %(board_scopes)s::text[], %(board_keys)s::text[], %(board_values)s::json[],
    %(board_expected)s::integer[],
    %(runs)s::json[], %(definitions)s::json[], %(starts)s::json[], %(run_steps)s::json[],
    %(approval)s::json, %(calls)s::json, %(timers)s::json, %(clear)s::text[],
    %(status)s, %(output)s::json
)

-- append_together --
-- Compare and append the outcomes of several steps.
select heartbit_append_together_v1(
    %(beside_steps)s::text[], %(beside_attempts)s::integer[],
    %(run_id)s, %(expected)s, %(step)s, %(attempt)s, %(verdict)s, %(park)s,
    %(event_steps)s::text[], %(types)s::text[], %(v)s, %(payloads)s::json[], %(steps)s::json,
    %(board_scopes)s::text[], %(board_keys)s::text[], %(board_values)s::json[],
    %(board_expected)s::integer[],
    %(runs)s::json[], %(definitions)s::json[], %(starts)s::json[], %(run_steps)s::json[],
    %(approval)s::json, %(calls)s::json, %(timers)s::json, %(clear)s::text[],
    %(status)s, %(output)s::json
)

-- board_writes --
-- Write keys of blackboards, in a transaction that has appended already.
select heartbit_board_writes_v1(
    %(run_id)s, %(scopes)s::text[], %(keys)s::text[], %(values)s::json[], %(expected)s::integer[]
)

-- definition --
-- An agent's definition by its hash.
select definition from definitions where hash = %(hash)s

-- events --
-- The events of a run after a number; null if the caller may see no such run.
select heartbit_events_v1(id, %(after)s + 1)
  from runs where id = %(run_id)s and (%(every)s or tenant_id is not distinct from %(tenant)s)

-- run --
-- The row of a run.
select id, task_id, parent_run_id, root_run_id, step_in_parent, agent, title, status, output,
       completion, completion_done_at is not null as completion_done,
       cancel_requested_at is not null as cancel_requested, tenant_id, user_id, created_at,
       finished_at
  from runs where id = %(run_id)s and (%(every)s or tenant_id is not distinct from %(tenant)s)

-- tree --
-- The rows of a whole run tree, oldest first.
select id, task_id, parent_run_id, root_run_id, step_in_parent, agent, title, status, output,
       completion, completion_done_at is not null as completion_done,
       cancel_requested_at is not null as cancel_requested, tenant_id, user_id, created_at,
       finished_at
  from runs
 where root_run_id = (select root_run_id from runs where id = %(run_id)s)
   and (%(every)s or tenant_id is not distinct from %(tenant)s)
 order by created_at, id

-- list_runs --
-- Root runs, newest first.
select id, task_id, parent_run_id, root_run_id, step_in_parent, agent, title, status, output,
       completion, completion_done_at is not null as completion_done,
       cancel_requested_at is not null as cancel_requested, tenant_id, user_id, created_at,
       finished_at
  from runs
 where parent_run_id is null
   and (%(every)s or tenant_id is not distinct from %(tenant)s)
   and (%(status)s::text is null or status = %(status)s)
   and (%(before)s::uuid is null
        or (created_at, id) < (select b.created_at, b.id from runs as b where b.id = %(before)s))
 order by created_at desc, id desc
 limit %(limit)s

-- take_dispatch --
-- Win the right to send steps that were never sent.
select step, heartbit_queue_v1(queue, suspicion)
  from heartbit_take_dispatch_v1(%(run_id)s, %(steps)s, %(again_seconds)s)

-- undispatched --
-- The steps of a run that were never sent, and are not put off.
select step from steps
 where run_id = %(run_id)s and dispatched_at is null
   and coalesce(not_before <= heartbit_now(), true)
   and (state = 'pending' or state = 'external' and kind = 'tool')
 order by step

-- set_completion --
-- Remember what waits for the end of a run.
update runs
   set completion = %(completion)s::json,
       completion_after = case when finished_at is not null then heartbit_in_seconds(2) end
 where id = %(run_id)s and completion is null

-- complete --
-- The end of a run has been published.
update runs set completion_done_at = heartbit_now(), completion_after = null
 where id = %(run_id)s and completion_done_at is null

-- request_cancel --
-- Ask for the end of a run tree: whether there is such a run, and the open runs of its tree.
with root as (
    select root_run_id as id from runs
     where id = %(run_id)s and (%(every)s or tenant_id is not distinct from %(tenant)s)
), asked as (
    update runs set cancel_requested_at = heartbit_now()
      from root
     where runs.id = root.id and cancel_requested_at is null
       and status in ('queued', 'running', 'waiting')
), opened as (
    select runs.id from runs join root on runs.root_run_id = root.id
     where status in ('queued', 'running', 'waiting')
), woken as (
    insert into timers (run_id, what, wake_at)
    select id, 'cancel', heartbit_in_seconds(%(again_seconds)s) from opened
    on conflict (run_id, what) do nothing
)
select exists (select from root),
       array(select runs.id from runs join opened using (id) order by created_at, id)

-- extend_leases --
-- Keep leases; gives those that are still held. A row that somebody is changing is left alone.
with held as (
    select steps.run_id, steps.step, steps.attempt
      from steps
      join unnest(%(run_ids)s::uuid[], %(steps)s::text[], %(attempts)s::integer[])
           as h (run_id, step, attempt) using (run_id, step, attempt)
     where steps.state = 'running'
), free as (
    select steps.run_id, steps.step
      from steps join held using (run_id, step, attempt)
     where steps.state = 'running'
       for update of steps skip locked
), extended as (
    update steps
       set lease_expires_at = heartbit_in_seconds(%(lease_seconds)s)
      from free, heartbit_no_wait()
     where steps.run_id = free.run_id and steps.step = free.step
)
select run_id, step, attempt from held

-- stopped_runs --
-- Those of these runs that have ended, or whose tree is asked to end.
select runs.id
  from runs join runs as root on root.id = runs.root_run_id
 where runs.id = any(%(run_ids)s::uuid[])
   and (runs.status in ('succeeded', 'failed', 'cancelled') or root.cancel_requested_at is not null)

-- release --
-- Hand a step back that was not begun.
update steps
   set state = 'pending', lease_owner = null, lease_expires_at = null, dispatched_at = null,
       dispatch_after = heartbit_in_seconds(%(delay)s)
  from heartbit_no_wait()
 where run_id = %(run_id)s and step = %(step)s and attempt = %(attempt)s and state = 'running'

-- put_off --
-- Hand a step back that goes on later, with what it has come to. That is paid for: it is kept safely.
update steps
   set state = 'pending', lease_owner = null, lease_expires_at = null, dispatched_at = null,
       dispatch_after = heartbit_in_seconds(%(seconds)s),
       not_before = heartbit_in_seconds(%(seconds)s), tried = %(tried)s::json
 where run_id = %(run_id)s and step = %(step)s and attempt = %(attempt)s and state = 'running'

-- set_timer --
-- Have an open run looked after at a later time.
insert into timers (run_id, what, wake_at)
select id, %(what)s, heartbit_in_seconds(%(seconds)s)
  from runs where id = %(run_id)s and status in ('queued', 'running', 'waiting')
on conflict (run_id, what) do update set wake_at = excluded.wake_at

-- clear_timer --
-- Nobody needs to be woken for this.
delete from timers where run_id = %(run_id)s and what = %(what)s

-- decide --
-- Decide an approval that is open, about these calls, and not too late (or, for its expiry, due).
with decided as (
    update approvals as a
       set decisions = %(decisions)s::json, decided_by = %(by)s, decided_at = heartbit_now()
      from runs
     where a.run_id = %(run_id)s and a.step = %(step)s and runs.id = a.run_id
       and (%(every)s or runs.tenant_id is not distinct from %(tenant)s)
       and a.decided_at is null and a.calls_hash = %(calls_hash)s
       and coalesce(a.expires_at <= heartbit_now(), false) = %(expired)s
    returning a.run_id, a.step
), woken as (
    insert into timers (run_id, what, wake_at)
    select run_id, 'decided/' || step, heartbit_in_seconds(%(again_seconds)s) from decided
    on conflict (run_id, what) do nothing
)
select run_id from decided

-- approvals --
-- Every approval of one run, oldest first.
select a.run_id, a.step, runs.root_run_id, a.agent, a.calls, a.calls_hash, a.decisions,
       a.decided_by, a.requested_at, a.expires_at, a.decided_at
  from approvals as a join runs on runs.id = a.run_id
 where a.run_id = %(run_id)s and (%(every)s or runs.tenant_id is not distinct from %(tenant)s)
 order by a.requested_at, a.step

-- open_approvals --
-- What waits for a human, oldest first.
select a.run_id, a.step, runs.root_run_id, a.agent, a.calls, a.calls_hash, a.decisions,
       a.decided_by, a.requested_at, a.expires_at, a.decided_at
  from approvals as a join runs on runs.id = a.run_id
 where a.decided_at is null and (%(every)s or runs.tenant_id is not distinct from %(tenant)s)
 order by a.requested_at, a.run_id, a.step
 limit %(limit)s

-- board_read --
-- The newest version of a key.
select value, version from blackboard_writes
 where scope = %(scope)s and key = %(key)s order by version desc limit 1

-- board_keys --
-- The keys of a blackboard.
select distinct key from blackboard_writes where scope = %(scope)s

-- board_after --
-- The writes of a blackboard that a copy has not seen.
select seq, key, version, value from blackboard_writes
 where scope = %(scope)s and seq > %(seq)s order by seq

-- admit_sweep --
-- Win the right to sweep now: one process of the fleet in this time.
insert into sweeps as s (name, at) select %(name)s, heartbit_now() from heartbit_no_wait()
on conflict (name) do update set at = excluded.at
 where s.at <= heartbit_now() - make_interval(secs => %(every_seconds)s)
returning name

-- admit --
-- Let runs begin that wait for their admission.
select heartbit_admit_v1(%(limit)s)

-- expired_steps --
-- Steps whose lease has run out: made ready to be sent again, or left to a verdict.
with lost as (
    select run_id, step, repeatable, heartbit_suspicion_v1(suspicion, lease_owner) as suspicion
      from steps
     where state = 'running' and lease_expires_at < heartbit_now()
       and dispatch_after <= heartbit_now()
     order by lease_expires_at
     limit %(limit)s
       for update skip locked
), judged as (
    select run_id, step, suspicion, repeatable and suspicion < 100 as again,
           case when not repeatable then 'in_doubt' when suspicion < 100 then 'again'
                else 'poisoned' end as fate
      from lost
)
update steps
   set state = case when again then 'pending' else 'running' end,
       suspicion = case when again then judged.suspicion else steps.suspicion end,
       lease_owner = case when again then null else lease_owner end,
       lease_expires_at = case when again then null else lease_expires_at end,
       dispatched_at = heartbit_now(), dispatch_count = dispatch_count + 1,
       dispatch_after = heartbit_in_seconds(%(again_seconds)s)
  from judged
 where steps.run_id = judged.run_id and steps.step = judged.step
returning steps.run_id, steps.step, kind, heartbit_queue_v1(queue, steps.suspicion), attempt, fate

-- unsent_steps --
-- Steps that were never sent, or sent and not claimed for too long.
with due as (
    select run_id, step from steps
     where (state = 'pending' or state = 'external' and kind = 'tool')
       and dispatch_after <= heartbit_now()
     order by dispatch_after
     limit %(limit)s
       for update skip locked
)
update steps
   set dispatched_at = heartbit_now(), dispatch_count = dispatch_count + 1,
       dispatch_after = heartbit_again_v1(%(again_seconds)s, dispatch_count)
  from due
 where steps.run_id = due.run_id and steps.step = due.step
returning steps.run_id, steps.step, kind, heartbit_queue_v1(queue, suspicion),
          state = 'external', dispatch_count

-- unclaimed_steps --
-- Steps that were sent to queues which are known to be empty now.
with due as (
    select run_id, step from steps
     where (state = 'pending' or state = 'external' and kind = 'tool') and state = 'pending'
       and dispatch_after > heartbit_now()
       and dispatched_at <= heartbit_in_seconds(-2)
       and heartbit_queue_v1(queue, suspicion) = any(%(queues)s)
     order by dispatch_after
     limit %(limit)s
       for update skip locked
)
update steps
   set dispatched_at = heartbit_now(), dispatch_count = dispatch_count + 1,
       dispatch_after = heartbit_again_v1(%(again_seconds)s, dispatch_count)
  from due
 where steps.run_id = due.run_id and steps.step = due.step
returning steps.run_id, steps.step, kind, heartbit_queue_v1(queue, suspicion),
          false, dispatch_count

-- due_timers --
-- Timers whose time has come; each comes back until it is cleared.
with due as (
    select run_id, what from timers
     where wake_at <= heartbit_now()
     order by wake_at
     limit %(limit)s
       for update skip locked
), stale as (
    delete from timers
     using due, runs
     where timers.run_id = due.run_id and timers.what = due.what and runs.id = due.run_id
       and runs.status in ('succeeded', 'failed', 'cancelled')
)
update timers
   set wake_at = heartbit_in_seconds(%(again_seconds)s)
  from due, runs
 where timers.run_id = due.run_id and timers.what = due.what and runs.id = due.run_id
   and runs.status in ('queued', 'running', 'waiting')
returning timers.run_id, timers.what

-- unpublished --
-- Runs whose end was not published; each comes back until it is.
with due as (
    select id from runs
     where completion_after is not null and completion_after <= heartbit_now()
     order by completion_after
     limit %(limit)s
       for update skip locked
)
update runs
   set completion_after = heartbit_in_seconds(%(again_seconds)s)
  from due
 where runs.id = due.id
returning runs.id

-- now --
-- The time that all leases, timers and schedules go by.
select heartbit_now()

-- lock_schedules --
-- Let nobody else change schedules until the end of the transaction.
lock table schedules in share row exclusive mode

-- sync_schedules --
-- Make the schedules of the configuration those of the table. A time that was missed stays due, unless
-- the schedule has other times now.
with given as (
    select name, cron, timezone, prompt, agent, enabled, next_run_at
      from unnest(%(names)s::text[], %(crons)s::text[], %(timezones)s::text[], %(prompts)s::json[],
                  %(agents)s::text[], %(enabled)s::boolean[], %(next_run_at)s::timestamptz[])
           as g(name, cron, timezone, prompt, agent, enabled, next_run_at)
), removed as (
    delete from schedules where from_config and name <> all(%(names)s::text[])
)
insert into schedules as s (name, cron, timezone, prompt, agent, enabled, next_run_at, from_config)
select name, cron, timezone, prompt, agent, enabled, next_run_at, true from given order by name
on conflict (name) do update
   set cron = excluded.cron, timezone = excluded.timezone, prompt = excluded.prompt,
       agent = excluded.agent, enabled = excluded.enabled, from_config = true,
       next_run_at = case
           when (s.cron, s.timezone, s.enabled)
                = (excluded.cron, excluded.timezone, excluded.enabled)
           then s.next_run_at else excluded.next_run_at end

-- due_schedules --
-- The schedules whose time has come, the oldest time first.
select name, cron, timezone, prompt, agent, next_run_at, heartbit_now()
  from schedules
 where enabled and next_run_at <= heartbit_now()
 order by next_run_at, name

-- seconds_to_schedule --
-- How long it is until the next schedule is due, leaving out those that are.
select extract(epoch from min(next_run_at) - heartbit_now())::float
  from schedules
 where enabled and next_run_at > heartbit_now()

-- start_schedule --
-- Open the run of a due time and move the schedule on, unless somebody else has.
with moved as (
    update schedules set next_run_at = %(next_run_at)s
     where name = %(name)s and next_run_at = %(due_at)s and enabled
    returning name
)
select heartbit_open_v1(%(run)s::json, %(definition)s::json, %(start)s::json, %(steps)s::json)
  from moved
