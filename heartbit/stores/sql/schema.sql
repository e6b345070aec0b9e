-- heartbit's journal in PostgreSQL (14 or newer).
--
-- A run is one agent on one prompt: a row in runs. What happened to it is in run_events, append-only
-- and numbered from 1; the rows of steps say which outcomes are still missing and who is working on
-- them. Nothing else is needed to go on with a run on another machine.
--
-- The only way to write to a journal is heartbit_append_v1: it compares the number of the next event
-- with the one the caller expects, and only then appends. So the rules stay with the caller: whoever
-- comes too late gets the events in between, thinks again and comes back. Two callers that finish
-- two steps at the same instant can therefore neither deadlock nor both hand over to the next turn.
--
-- Locks are taken in one order, so that nobody ever waits in a circle: the row of a schedule or
-- of a sub-run, that of its parent, rows of their steps, definitions, and last of all blackboards,
-- which many runs share.
-- There are no foreign keys on run_events and steps: their key-share locks would break the order.
--
-- An outcome counts only from the attempt that holds the step: a step is claimed for an attempt, and
-- the append names that attempt. unique (run_id, step) is the last line behind this.
--
-- Text a model or a tool produced is kept in columns of type json, fed with ASCII-escaped JSON: jsonb
-- and text refuse NUL and lone surrogates. It is never looked into: the operators of json refuse NUL
-- as well.
--
-- What is lost with a crash of the server without harm (claims of steps that may be repeated, renewed
-- leases, notes of what was sent) does not wait for the disk; an outcome always does. The log is
-- ordered: the next outcome that is safe on disk takes everything before it along.
--
-- Functions carry a version in their names, so that workers of two releases can run side by side.

-- Also made by the runner of the migrations, before the first one.
create table if not exists schema_migrations (
    version integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp()
);

-- The clock of all leases and timers. Tests set heartbit.clock_offset (an interval). STABLE, because
-- a VOLATILE function forbids index scans and now() is the transaction's start.
create function heartbit_now() returns timestamptz language sql stable as $$
    select clock_timestamp()
        + coalesce(nullif(current_setting('heartbit.clock_offset', true), ''), '0')::interval
$$;

create function heartbit_in_seconds(p_seconds float) returns timestamptz language sql stable as $$
    select heartbit_now() + make_interval(secs => p_seconds)
$$;

-- This transaction need not wait for the disk.
create function heartbit_no_wait() returns void language sql as $$
    select set_config('synchronous_commit', 'off', true)
$$;

create table definitions (
    hash text primary key,
    definition json not null
);

-- title: the beginning of the prompt, for lists. completion: what waits for the end of the run, to be
-- published not before completion_after (null: nothing is to be published).
create table runs (
    id uuid primary key,
    task_id text not null unique,
    parent_run_id uuid,
    root_run_id uuid not null,
    step_in_parent text,
    agent text not null,
    title text not null,
    prompt_hash text not null,
    definition_hash text not null,
    status text not null default 'queued'
        check (status in ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled')),
    next_seq integer not null default 1,
    tenant_id text,
    user_id text,
    priority integer not null default 0,
    deadline_at timestamptz,
    completion json,
    completion_after timestamptz,
    completion_done_at timestamptz,
    output json,
    cancel_requested_at timestamptz,
    created_at timestamptz not null default heartbit_now(),
    finished_at timestamptz
) with (fillfactor = 80);  -- next_seq changes with every outcome: keep the new version on the page
create index runs_by_root on runs (root_run_id);
create index runs_by_creation on runs (created_at desc, id desc) where parent_run_id is null;
create index runs_of_tenant on runs (tenant_id, created_at desc, id desc)
    where parent_run_id is null;
create index runs_to_complete on runs (completion_after) where completion_after is not null;

-- The definition is left out of the first event: it is in definitions, once for all runs.
create table run_events (
    run_id uuid not null,
    seq integer not null,
    step text,
    type text not null,
    v integer not null,
    payload json not null,
    created_at timestamptz not null default heartbit_now(),
    primary key (run_id, seq),
    unique (run_id, step)
);

-- pending: somebody should claim it. running: claimed under a lease. external: somebody else tells us
-- its outcome (a sub-run, a Celery task of another code base, a human who was asked what to do about
-- an attempt in doubt). done: its outcome is in the journal, or the run has ended without it. held:
-- its run has not been admitted yet; nobody sends it.
--
-- suspicion: 5 for every attempt whose lease was lost nearly alone, 1 for one that was lost with many
-- others. From 10 on the step goes to heartbit.suspects, where it runs alone; 100: it was lost there,
-- too, and is not tried again.
--
-- dispatch_after: when the sweep looks at the step again. not_before: it was put off, and nobody
-- begins it sooner. tried: what it had come to by then, for its next attempts.
create table steps (
    run_id uuid not null,
    step text not null,
    kind text not null check (kind in ('model', 'tool', 'sub_run', 'summary', 'memories')),
    queue text not null,
    repeatable boolean not null,
    state text not null default 'pending'
        check (state in ('pending', 'running', 'external', 'done', 'held')),
    attempt integer not null default 0,
    suspicion integer not null default 0,
    lease_owner text,
    lease_expires_at timestamptz,
    dispatched_at timestamptz,
    dispatch_after timestamptz not null,
    dispatch_count integer not null default 0,
    not_before timestamptz,
    tried json,
    primary key (run_id, step)
);
-- One partial index per question the sweep asks; runs that wait for a human are in none of them.
create index steps_to_dispatch on steps (dispatch_after)
    where state = 'pending' or state = 'external' and kind = 'tool';
create index steps_leased on steps (lease_expires_at) where state = 'running';

-- Runs whose steps are held: a queue that is read from its head.
create table admissions (
    run_id uuid primary key,
    priority integer not null,
    created_at timestamptz not null
);
create index admissions_in_order on admissions (priority desc, created_at, run_id);

-- A question about calls: decided_at without decisions means that its run has ended meanwhile.
create table approvals (
    run_id uuid not null,
    step text not null,
    agent text not null,
    calls json not null,
    calls_hash text not null,
    decisions json,
    decided_by text,
    requested_at timestamptz not null default heartbit_now(),
    expires_at timestamptz,
    decided_at timestamptz,
    primary key (run_id, step)
);
create index approvals_open on approvals (requested_at) where decided_at is null;

-- Somebody must look after the run at wake_at: because of its deadline, a cancel request, a decision
-- or the expiry of an approval, or whatever else an engine waits for. A timer that is handed out comes
-- back until it is cleared; the end of the run clears all of them.
create table timers (
    run_id uuid not null,
    what text not null,
    wake_at timestamptz not null,
    primary key (run_id, what)
);
create index timers_due on timers (wake_at);

-- Every version of every key of a shared blackboard; the highest one is the value. seq orders the
-- writes of one scope without gaps, so that a copy elsewhere knows what it has not seen. run_seq is
-- the number of the event that was the next one of the run then, so that a fork knows what to keep.
create table blackboard_writes (
    scope text not null,
    seq integer not null,
    key text not null,
    version integer not null,
    value json not null,
    run_id uuid not null,
    run_seq integer not null default 0,
    primary key (scope, seq),
    unique (scope, key, version)
);

create table sweeps (
    name text primary key,
    at timestamptz not null
);

-- Prompts that are run again and again. next_run_at moves on in the very statement that opens the run
-- of the time it had, so that a time is neither missed nor used twice. prompt is JSON text, which
-- keeps what text cannot. from_config: the row is the configuration file's, to change and to remove.
create table schedules (
    name text primary key,
    cron text not null,
    timezone text not null,
    prompt json not null,
    agent text,
    enabled boolean not null,
    from_config boolean not null,
    next_run_at timestamptz not null
);
create index schedules_due on schedules (next_run_at) where enabled;

-- How suspicious a step is after the loss of one more lease of this owner.
create function heartbit_suspicion_v1(p_suspicion integer, p_owner text)
returns integer language sql stable as $$
    select case
        when p_suspicion >= 10 then 100
        when (select count(*) from (select from steps where state = 'running'
                                       and lease_owner = p_owner limit 5) as lost) < 5
            then p_suspicion + 5
        else p_suspicion + 1 end
$$;

create function heartbit_queue_v1(p_queue text, p_suspicion integer)
returns text language sql immutable as $$
    select case when p_suspicion >= 10 then 'heartbit.suspects' else p_queue end
$$;

-- When a step that was sent `p_count` times is sent again: later each time.
create function heartbit_again_v1(p_seconds float, p_count integer)
returns timestamptz language sql stable as $$
    select heartbit_in_seconds(p_seconds * 2 ^ least(p_count, 8))
$$;

-- Open a run: its row, its first event, its first steps. `p_run` has the columns, free of text that
-- a person wrote; `p_start` is the payload of its first event; `p_steps` is as for heartbit_append_v1.
-- Gives {"opened": true}, or what is stored under this id already: {"opened": false, "status",
-- "agent", "prompt_hash", "tenant_id"}.
create function heartbit_open_v1(p_run json, p_definition json, p_start json, p_steps json)
returns json language plpgsql as $$
declare
    v_id uuid := (p_run->>'id')::uuid;
    v_deadline timestamptz := heartbit_in_seconds((p_run->>'timeout_seconds')::float);
    v_run runs;
begin
    insert into definitions (hash, definition)
    select p_run->>'definition_hash', p_definition
     where not exists (select from definitions where hash = p_run->>'definition_hash')
    on conflict (hash) do nothing;
    insert into runs (id, task_id, parent_run_id, root_run_id, step_in_parent, agent, title,
                      prompt_hash, definition_hash, next_seq, tenant_id, user_id, priority,
                      deadline_at)
    values (v_id, p_run->>'task_id', (p_run->>'parent_run_id')::uuid,
            (p_run->>'root_run_id')::uuid, p_run->>'step_in_parent', p_run->>'agent',
            p_run->>'title', p_run->>'prompt_hash', p_run->>'definition_hash', 2,
            p_run->>'tenant_id', p_run->>'user_id', (p_run->>'priority')::integer, v_deadline)
    on conflict do nothing;
    if not found then
        select * into v_run from runs where id = v_id or task_id = p_run->>'task_id';
        return json_build_object(
            'opened', false, 'id', v_run.id, 'status', v_run.status, 'agent', v_run.agent,
            'prompt_hash', v_run.prompt_hash, 'tenant_id', v_run.tenant_id
        );
    end if;
    perform heartbit_insert_v1(
        v_id, 1, array['start'], array['run_started'], (p_run->>'v')::integer, array[p_start],
        p_steps
    );
    insert into admissions (run_id, priority, created_at)
    select id, priority, created_at from runs
     where id = v_id and exists (select from json_to_recordset(p_steps) as s(state text)
                                  where s.state = 'held');
    if v_deadline is not null and not found then
        insert into timers (run_id, what, wake_at) values (v_id, 'deadline', v_deadline);
    end if;
    return json_build_object('opened', true, 'id', v_id, 'status', 'queued');
end
$$;

-- Open a run as a fork: it begins with the first `p_kept` events of the run `p_from`, its own start in
-- place of the first one. Their steps are done, and the blackboard of the new run has what was on that
-- of the old one by then. Otherwise as heartbit_open_v1.
create function heartbit_fork_v1(
    p_run json, p_definition json, p_start json, p_steps json, p_from uuid, p_kept integer
) returns json language plpgsql as $$
declare
    v_id uuid := (p_run->>'id')::uuid;
    v_opened json := heartbit_open_v1(p_run, p_definition, p_start, p_steps);
begin
    if not (v_opened->>'opened')::boolean then
        return v_opened;
    end if;
    update runs set next_seq = p_kept + 1 where id = v_id;
    insert into run_events (run_id, seq, step, type, v, payload, created_at)
    select v_id, seq, step, type, v, payload, created_at
      from run_events where run_id = p_from and seq between 2 and p_kept;
    insert into steps (run_id, step, kind, queue, repeatable, state, attempt, dispatch_after)
    select v_id, steps.step, kind, queue, repeatable, 'done', attempt, dispatch_after
      from steps join run_events using (run_id, step)
     where run_id = p_from and seq between 2 and p_kept;
    -- What a sub-run wrote came with the event that reports its end.
    insert into blackboard_writes (scope, seq, key, version, value, run_id, run_seq)
    select v_id, row_number() over (order by w.seq), w.key,
           row_number() over (partition by w.key order by w.seq), w.value, v_id,
           coalesce(ended.seq + 1, w.run_seq)
      from blackboard_writes as w
      left join runs as sub on sub.id = w.run_id and sub.parent_run_id = p_from
      left join run_events as ended on ended.run_id = p_from and ended.step = sub.step_in_parent
     where w.scope = p_from::text
       and (w.run_id = p_from and w.run_seq <= p_kept + 1 or ended.seq <= p_kept);
    return v_opened;
end
$$;

-- Put events, numbered from `p_from`, and new steps down. Only for the functions of this file.
create function heartbit_insert_v1(
    p_run_id uuid, p_from integer,
    p_event_steps text[], p_types text[], p_v integer, p_payloads json[], p_steps json
) returns void language plpgsql as $$
begin
    insert into run_events (run_id, seq, step, type, v, payload)
    select p_run_id, p_from + (n - 1)::integer, step, type, p_v, payload
      from unnest(p_event_steps, p_types, p_payloads) with ordinality as e(step, type, payload, n);
    if json_array_length(p_steps) > 0 then
        insert into steps (run_id, step, kind, queue, repeatable, state, attempt, lease_owner,
                           lease_expires_at, dispatched_at, dispatch_count, dispatch_after)
        select p_run_id, step, kind, queue, repeatable, state,
               case state when 'running' then 1 else 0 end,
               owner, heartbit_in_seconds(lease_seconds),
               case when again_seconds is not null then heartbit_now() end,
               case when again_seconds is not null then 1 else 0 end,
               case when again_seconds is not null then heartbit_again_v1(again_seconds, 0)
                    when state = 'running' then heartbit_now()
                    else heartbit_in_seconds(greatest(delay, 1)) end
          from json_to_recordset(p_steps) as s(step text, kind text, queue text,
               repeatable boolean, state text, delay float, owner text, lease_seconds float,
               again_seconds float);
    end if;
end
$$;

-- Append events to a run, if `p_expected` is still the number of the next one.
--
-- `p_step` and `p_attempt` are the fence: the step whose outcome this is, and the attempt that holds
-- it (null, null: no step). `p_verdict` says that the lease of that attempt must have expired: it is
-- somebody else's decision about a step that is in doubt. `p_park` leaves such a step without an
-- outcome: it waits for somebody, and its attempt holds it no more.
-- `p_event_steps`, `p_types`, `p_payloads` are the events, column by column, all of version `p_v`.
-- `p_steps` is a list of {step, kind, queue, repeatable, state, delay, owner, lease_seconds,
-- again_seconds}; one with the last of these is sent by the caller after the commit. The board's
-- writes come as columns, too. `p_runs`, `p_definitions`, `p_starts` and `p_run_steps` are
-- sub-runs to open, for the same tenant and user. `p_approval` is {step, agent, calls_hash,
-- expires_seconds}; `p_timers` a list of {what, seconds}; `p_clear` names timers.
--
-- Gives {"ok": true, "seq": next} or {"ok": false, "why": "behind"|"ahead"|"ended"|"unknown",
-- "events": [what is in between]}, and then has changed nothing. Raises HB001 if another attempt
-- holds the step, HB002 if a key of a blackboard is at another version, and HB003 if the id of a
-- sub-run is taken.
create function heartbit_append_v1(
    p_run_id uuid,
    p_expected integer,
    p_step text,
    p_attempt integer,
    p_verdict boolean,
    p_park boolean,
    p_event_steps text[],
    p_types text[],
    p_v integer,
    p_payloads json[],
    p_steps json,
    p_board_scopes text[],
    p_board_keys text[],
    p_board_values json[],
    p_board_expected integer[],
    p_runs json[],
    p_definitions json[],
    p_starts json[],
    p_run_steps json[],
    p_approval json,
    p_calls json,
    p_timers json,
    p_clear text[],
    p_status text,
    p_output json
) returns json language plpgsql as $$
declare
    v_over boolean := coalesce(p_status in ('succeeded', 'failed', 'cancelled'), false);
    v_next integer;
begin
    update runs
       set next_seq = next_seq + cardinality(p_types),
           status = coalesce(p_status, case status when 'queued' then 'running' else status end),
           output = coalesce(p_output, output),
           finished_at = case when v_over then heartbit_now() end,
           completion_after = case when v_over and completion is not null
                                   then heartbit_in_seconds(2) end
     where id = p_run_id and next_seq = p_expected
       and status in ('queued', 'running', 'waiting')
    returning next_seq into v_next;
    if not found then
        return heartbit_refusal_v1(p_run_id, p_expected);
    end if;
    if p_step is not null then
        update steps
           set state = case when p_park then 'external' else 'done' end,
               attempt = attempt + p_park::integer,
               dispatched_at = case when p_park then coalesce(dispatched_at, heartbit_now())
                                    else dispatched_at end,
               dispatch_after = case when p_park then 'infinity' else dispatch_after end,
               lease_owner = null, lease_expires_at = null
         where run_id = p_run_id and step = p_step and attempt = p_attempt
           and (state = 'external' and not p_verdict
                or state = 'running' and (not p_verdict or lease_expires_at < heartbit_now()));
        if not found then
            raise exception using errcode = 'HB001', message = 'another attempt holds this step';
        end if;
    end if;
    perform heartbit_insert_v1(
        p_run_id, p_expected, p_event_steps, p_types, p_v, p_payloads, p_steps
    );
    if cardinality(p_runs) > 0 then
        perform heartbit_open_sub_runs_v1(p_run_id, p_runs, p_definitions, p_starts, p_run_steps);
    end if;
    if p_approval is not null then
        perform heartbit_ask_v1(p_run_id, p_approval, p_calls);
    end if;
    if cardinality(p_clear) > 0 then
        delete from timers where run_id = p_run_id and what = any(p_clear);
    end if;
    if json_array_length(p_timers) > 0 then
        insert into timers (run_id, what, wake_at)
        select p_run_id, what, heartbit_in_seconds(seconds)
          from json_to_recordset(p_timers) as t(what text, seconds float)
        on conflict (run_id, what) do update set wake_at = excluded.wake_at;
    end if;
    if v_over then
        perform heartbit_close_v1(p_run_id);
    end if;
    perform heartbit_board_writes_v1(
        p_run_id, p_board_scopes, p_board_keys, p_board_values, p_board_expected
    );
    return json_build_object('ok', true, 'seq', v_next);
end
$$;

-- Append the outcomes of several steps of a run at once: that of `p_step`, and those of
-- `p_beside_steps`, which the attempts `p_beside_attempts` must hold. Otherwise as heartbit_append_v1.
create function heartbit_append_together_v1(
    p_beside_steps text[],
    p_beside_attempts integer[],
    p_run_id uuid,
    p_expected integer,
    p_step text,
    p_attempt integer,
    p_verdict boolean,
    p_park boolean,
    p_event_steps text[],
    p_types text[],
    p_v integer,
    p_payloads json[],
    p_steps json,
    p_board_scopes text[],
    p_board_keys text[],
    p_board_values json[],
    p_board_expected integer[],
    p_runs json[],
    p_definitions json[],
    p_starts json[],
    p_run_steps json[],
    p_approval json,
    p_calls json,
    p_timers json,
    p_clear text[],
    p_status text,
    p_output json
) returns json language plpgsql as $$
declare
    v_appended json := heartbit_append_v1(
        p_run_id, p_expected, p_step, p_attempt, p_verdict, p_park, p_event_steps, p_types, p_v,
        p_payloads, p_steps, p_board_scopes, p_board_keys, p_board_values, p_board_expected,
        p_runs, p_definitions, p_starts, p_run_steps, p_approval, p_calls, p_timers, p_clear,
        p_status, p_output
    );
    v_held integer;
begin
    if not (v_appended->>'ok')::boolean then
        return v_appended;
    end if;
    update steps set state = 'done', lease_owner = null, lease_expires_at = null
      from unnest(p_beside_steps, p_beside_attempts) as beside (step, attempt)
     where steps.run_id = p_run_id and steps.step = beside.step
       and steps.attempt = beside.attempt and steps.state = 'running';
    get diagnostics v_held = row_count;
    if v_held <> cardinality(p_beside_steps) then
        raise exception using errcode = 'HB001', message = 'another attempt holds a step';
    end if;
    return v_appended;
end
$$;

-- Open the sub-runs of a run, for its tenant and user.
create function heartbit_open_sub_runs_v1(
    p_parent uuid, p_runs json[], p_definitions json[], p_starts json[], p_run_steps json[]
) returns void language plpgsql as $$
begin
    -- All definitions first and in order: two orchestrators may bring the same new ones.
    insert into definitions (hash, definition)
    select distinct on (run->>'definition_hash') run->>'definition_hash', definition
      from unnest(p_runs, p_definitions) as r(run, definition)
     order by run->>'definition_hash'
    on conflict (hash) do nothing;
    perform from unnest(p_runs, p_definitions, p_starts, p_run_steps)
                 as r(run, definition, start, run_steps),
            lateral heartbit_open_v1(run, definition, start, run_steps) as opened
      where not (opened->>'opened')::boolean;
    if found then
        raise exception using errcode = 'HB003', message = 'the id of a sub-run is taken';
    end if;
    update runs
       set tenant_id = parent.tenant_id, user_id = parent.user_id, priority = parent.priority
      from runs as parent
     where parent.id = p_parent and runs.id in (select (run->>'id')::uuid from unnest(p_runs) as run)
       and (parent.tenant_id is not null or parent.user_id is not null or parent.priority <> 0);
end
$$;

-- Ask a human. Only for heartbit_append_v1.
create function heartbit_ask_v1(p_run_id uuid, p_approval json, p_calls json)
returns void language plpgsql as $$
declare
    v_expires timestamptz := heartbit_in_seconds((p_approval->>'expires_seconds')::float);
begin
    insert into approvals (run_id, step, agent, calls, calls_hash, expires_at)
    values (p_run_id, p_approval->>'step', p_approval->>'agent', p_calls,
            p_approval->>'calls_hash', v_expires);
    if v_expires is not null then
        insert into timers (run_id, what, wake_at)
        values (p_run_id, 'expiry/' || (p_approval->>'step'), v_expires);
    end if;
end
$$;

-- The run is over: nobody needs to do or decide anything for it any more.
create function heartbit_close_v1(p_run_id uuid) returns void language plpgsql as $$
begin
    update steps set state = 'done', lease_owner = null, lease_expires_at = null
     where run_id = p_run_id and state <> 'done';
    update approvals set decided_at = heartbit_now()
     where run_id = p_run_id and decided_at is null;
    delete from timers where run_id = p_run_id;
    delete from admissions where run_id = p_run_id;
end
$$;

-- The events of a run from `p_from` on, oldest first, as a JSON list; the first one of a run has the
-- hash of its definition.
create function heartbit_events_v1(p_run_id uuid, p_from integer)
returns json language sql stable as $$
    select coalesce(
        json_agg(json_build_object(
            'v', v, 'payload', payload,
            'definition', case when seq = 1 then
                (select definition_hash from runs where id = p_run_id) end
        ) order by seq), '[]'
    )
      from run_events where run_id = p_run_id and seq >= p_from
$$;

-- Why a run did not take an append, and what the caller has not seen.
create function heartbit_refusal_v1(p_run_id uuid, p_expected integer)
returns json language sql stable as $$
    select coalesce(
        (select json_build_object(
            'ok', false,
            'why', case when next_seq > p_expected then 'behind'
                        when next_seq < p_expected then 'ahead' else 'ended' end,
            'events', heartbit_events_v1(id, p_expected))
           from runs where id = p_run_id),
        json_build_object('ok', false, 'why', 'unknown')
    )
$$;

-- Claim a step for a new attempt, and get what is needed to work on it.
--
-- Gives {"claimed": true, "attempt", "tried", "cancelled", "status", "seq", "events"}, the events being
-- those after `p_known`, or {"claimed": false, "why": "done"|"leased"|"in_doubt"|"poisoned"|"external"
-- |"ended"|"unknown", ...the same}. A step whose lease has expired is claimed again if it may be
-- repeated; otherwise it is in doubt, and only a caller who names the attempt in doubt (`p_doubt`)
-- gets it, also after it was parked.
create function heartbit_claim_v1(
    p_run_id uuid, p_step text, p_owner text, p_lease_seconds float, p_known integer,
    p_doubt integer
) returns json language plpgsql as $$
declare
    v_step steps;
    v_why text;
    v_found json;
begin
    update runs set status = 'running'
     where id = p_run_id and status = 'queued'
       and exists (select from steps where run_id = p_run_id and step = p_step
                      and state = 'pending');
    update steps
       set attempt = attempt + 1,
           suspicion = case when state = 'running'
                            then heartbit_suspicion_v1(suspicion, lease_owner) else suspicion end,
           state = 'running', lease_owner = p_owner, dispatch_after = heartbit_now(),
           lease_expires_at = heartbit_in_seconds(p_lease_seconds)
     where run_id = p_run_id and step = p_step
       and (state = 'pending' and coalesce(not_before <= heartbit_now(), true)
            or state = 'running' and (repeatable or attempt = p_doubt)
               and lease_expires_at < heartbit_now()
               and heartbit_suspicion_v1(suspicion, lease_owner) < 100
            or state = 'external' and kind = 'tool' and attempt = p_doubt)
    returning * into v_step;
    if not found then
        select * into v_step from steps where run_id = p_run_id and step = p_step;
        v_why := case
            when v_step.run_id is null then 'unknown'
            when v_step.state in ('done', 'external') then v_step.state
            when v_step.state = 'pending' or v_step.lease_expires_at >= heartbit_now()
                then 'leased'
            when not v_step.repeatable and v_step.attempt is distinct from p_doubt then 'in_doubt'
            when heartbit_suspicion_v1(v_step.suspicion, v_step.lease_owner) >= 100
                then 'poisoned'
            else 'leased' end;  -- it has become free only now
    elsif v_step.repeatable then
        perform heartbit_no_wait();
    end if;
    select json_build_object(
        'claimed', v_why is null,
        'why', case when status in ('succeeded', 'failed', 'cancelled') then 'ended' else v_why end,
        'attempt', v_step.attempt,
        'tried', v_step.tried,
        'status', status,
        'seq', next_seq,
        'cancelled', exists (select from runs as root where root.id = runs.root_run_id
                                and root.cancel_requested_at is not null),
        'events', heartbit_events_v1(id, p_known + 1))
      into v_found
      from runs where id = p_run_id;
    return coalesce(
        v_found, json_build_object('claimed', false, 'why', 'unknown', 'events', '[]'::json)
    );
end
$$;

-- Let runs begin that were opened to wait for that: the highest priority first, then the oldest, while
-- fewer than `p_limit` trees (null: no limit) have something to do. A tree that waits for a human has
-- nothing to do. A run's time begins now. Gives the ids of the runs, whose steps can be sent.
create function heartbit_admit_v1(p_limit integer)
returns setof uuid language plpgsql as $$
declare
    v_free integer;
    v_id uuid;
begin
    if not exists (select from admissions) then
        return;
    end if;
    -- One at a time, or each would take the same free places; the next statement sees what is taken.
    perform pg_advisory_xact_lock(hashtextextended('heartbit.admission', 0));
    select p_limit - count(distinct runs.root_run_id) into v_free
      from steps join runs on runs.id = steps.run_id
     where steps.state = 'running'
        or (steps.state = 'pending' or steps.state = 'external' and steps.kind = 'tool')
           and steps.dispatch_after < 'infinity';
    for v_id in select run_id from admissions
                 order by priority desc, created_at, run_id
                 limit case when p_limit is not null then greatest(v_free, 0) end loop
        update runs
           set deadline_at = heartbit_now() + (deadline_at - created_at)
         where id = v_id and status = 'queued';
        continue when not found;  -- it has just ended without ever having begun
        delete from admissions where run_id = v_id;
        insert into timers (run_id, what, wake_at)
        select id, 'deadline', deadline_at from runs where id = v_id and deadline_at is not null;
        update steps set state = 'pending', dispatch_after = heartbit_in_seconds(1)
         where run_id = v_id and state = 'held';
        return next v_id;
    end loop;
end
$$;

-- Win the right to send steps that were never sent. They are sent again after `p_again_seconds` if
-- nobody has claimed them by then.
create function heartbit_take_dispatch_v1(p_run_id uuid, p_steps text[], p_again_seconds float)
returns setof steps language plpgsql as $$
begin
    -- Sending a Celery task of another code base is an effect that must be known before.
    if not exists (select from steps where run_id = p_run_id and step = any(p_steps)
                      and state = 'external') then
        perform heartbit_no_wait();
    end if;
    return query
        with won as (
            select step from steps
             where run_id = p_run_id and step = any(p_steps) and dispatched_at is null
               and coalesce(not_before <= heartbit_now(), true)
               and (state = 'pending' or state = 'external' and kind = 'tool')
               for update skip locked
        )
        update steps
           set dispatched_at = heartbit_now(), dispatch_count = dispatch_count + 1,
               dispatch_after = heartbit_again_v1(p_again_seconds, dispatch_count)
          from won
         where steps.run_id = p_run_id and steps.step = won.step
        returning steps.*;
end
$$;

-- Write keys of blackboards; `p_expected` (null: whatever) must be their versions, else HB002 is
-- raised. Scopes are locked in one order and until the end of the transaction, so that their writes
-- are numbered without gaps in the order in which they become visible. Gives the last new version.
create function heartbit_board_writes_v1(
    p_run_id uuid, p_scopes text[], p_keys text[], p_values json[], p_expected integer[]
) returns integer language plpgsql as $$
declare
    v_write record;
    v_version integer;
begin
    if cardinality(p_scopes) = 0 then
        return null;
    end if;
    for v_write in select distinct hashtextextended('heartbit.blackboard:' || scope, 0) as lock
                     from unnest(p_scopes) as scope order by lock loop
        perform pg_advisory_xact_lock(v_write.lock);
    end loop;
    for v_write in select * from unnest(p_scopes, p_keys, p_values, p_expected)
                        as w(scope, key, value, expected) loop
        select coalesce(max(version), 0) into v_version
          from blackboard_writes where scope = v_write.scope and key = v_write.key;
        if v_write.expected <> v_version then
            raise exception using errcode = 'HB002', message = 'another version',
                detail = json_build_object('key', v_write.key, 'version', v_version,
                                           'expected', v_write.expected)::text;
        end if;
        v_version := v_version + 1;
        insert into blackboard_writes (scope, seq, key, version, value, run_id, run_seq)
        values (v_write.scope,
                (select coalesce(max(seq), 0) + 1 from blackboard_writes
                  where scope = v_write.scope),
                v_write.key, v_version, v_write.value, p_run_id,
                coalesce((select next_seq from runs where id = p_run_id), 0));
    end loop;
    return v_version;
end
$$;


-- entry is the memory itself as JSON text, which keeps what text cannot; the other columns are what
-- it is filtered and ranked by. tenant_id and user_id are '' for nobody. terms and counts belong
-- together: counts[i] is how often terms[i] occurs, length their sum. strength is as it was at
-- last_accessed. embedding_model is the model and the length of its vectors; an array of numbers
-- needs no pgvector, and there is one index over it, as vectors, for each model that is in use.
create table memories (
    tenant_id text not null,
    user_id text not null,
    agent text not null,
    id text not null,
    entry json not null,
    category text not null,
    memory_type text not null,
    confidentiality text not null,
    tags text[] not null,
    importance smallint not null,
    strength double precision not null,
    access_count integer not null,
    created_at timestamptz not null,
    last_accessed timestamptz not null,
    related_ids text[] not null,
    terms text[] not null,
    counts integer[] not null,
    length integer not null,
    embedding real[],
    embedding_model text,
    primary key (tenant_id, id)
) with (fillfactor = 75);
create index memories_namespace on memories (tenant_id, user_id, agent);
create index memories_terms on memories using gin (terms) with (fastupdate = off);
create index memories_related on memories using gin (related_ids) with (fastupdate = off);

-- Documents by collection and source: a path or an address, which is what a citation names. recipe
-- says how the text was taken out and cut, content_hash what it was taken out of: a document whose
-- two are the same is not read again. etag and last_modified are a web server's.
create table knowledge_documents (
    collection text not null,
    source text not null,
    title json not null,
    content_hash text not null,
    recipe text not null,
    etag text,
    last_modified text,
    indexed_at timestamptz not null,
    primary key (collection, source)
);

-- The pieces that are found and cited. entry is text and heading as JSON; terms, counts, length and
-- the embedding are as in memories.
create table knowledge_chunks (
    collection text not null,
    source text not null,
    number integer not null,
    entry json not null,
    first_line integer not null,
    last_line integer not null,
    terms text[] not null,
    counts integer[] not null,
    length integer not null,
    embedding real[],
    embedding_model text,
    primary key (collection, source, number),
    foreign key (collection, source) references knowledge_documents on delete cascade
);
create index knowledge_chunks_terms on knowledge_chunks using gin (terms);
