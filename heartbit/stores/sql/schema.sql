-- heartbit's journal in PostgreSQL (14 or newer).
--
-- A run is one agent on one prompt: a row in runs. What happened to it is in run_events, append-only
-- and numbered from 1; the rows of steps say which outcomes are still missing and who is working on
-- them. Nothing else is needed to go on with a run on another machine.
--
-- The only way to write to a journal is heartbit_append_v1: it compares the number of the next event
-- with the one the caller expects, and only then appends. So the rules stay with the caller: whoever
-- comes too late gets the events in between, thinks again and comes back. The row of the run is the
-- only lock. Two callers that finish two steps at the same instant can therefore neither deadlock
-- nor both hand over to the next turn; there are no foreign keys on run_events and steps, whose
-- key-share locks would bring the deadlock back.
--
-- An outcome counts only from the attempt that holds the step: a step is claimed for an attempt, and
-- the append names that attempt. unique (run_id, step) is the last line behind this.
--
-- Text a model or a tool produced is kept in columns of type json, fed with ASCII-escaped JSON: jsonb
-- and text refuse NUL and lone surrogates.
--
-- Functions carry a version in their names, so that workers of two releases can run side by side.

create table schema_migrations (
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

create table definitions (
    hash text primary key,
    definition json not null
);

create table runs (
    id uuid primary key,
    task_id text not null unique,
    parent_run_id uuid,
    root_run_id uuid not null,
    step_in_parent text,
    agent text not null,
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
    completion_done_at timestamptz,
    output json,
    cancel_requested_at timestamptz,
    created_at timestamptz not null default heartbit_now(),
    finished_at timestamptz
);
create index runs_by_root on runs (root_run_id);
create index runs_by_creation on runs (created_at desc);
-- One partial index per question the sweep asks; parked runs are in none of them.
create index runs_past_deadline on runs (deadline_at)
    where deadline_at is not null and status in ('queued', 'running', 'waiting');
create index runs_to_cancel on runs (cancel_requested_at)
    where cancel_requested_at is not null and status in ('queued', 'running', 'waiting');
create index runs_to_complete on runs (finished_at)
    where completion is not null and completion_done_at is null
        and status in ('succeeded', 'failed', 'cancelled');

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
-- its outcome (a sub-run, a Celery task of another code base). done: its outcome is in the journal.
create table steps (
    run_id uuid not null,
    step text not null,
    kind text not null check (kind in ('model', 'tool', 'sub_run', 'summary')),
    queue text not null,
    repeatable boolean not null,
    state text not null default 'pending'
        check (state in ('pending', 'running', 'external', 'done')),
    attempt integer not null default 0,
    lost_attempts integer not null default 0,
    lease_owner text,
    lease_expires_at timestamptz,
    dispatched_at timestamptz,
    dispatch_after timestamptz not null default heartbit_now(),
    dispatch_count integer not null default 0,
    primary key (run_id, step)
);
create index steps_to_dispatch on steps (dispatch_after) where state = 'pending';
create index steps_leased on steps (lease_expires_at) where state = 'running';

create table approvals (
    run_id uuid not null,
    step text not null,
    root_run_id uuid not null,
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
create index approvals_expiring on approvals (expires_at)
    where decided_at is null and expires_at is not null;

create table timers (
    run_id uuid not null,
    what text not null,
    wake_at timestamptz not null,
    primary key (run_id, what)
);
create index timers_due on timers (wake_at);

-- Every version of every key of a shared blackboard; the highest one is the value. seq orders the
-- writes of one scope, so that a copy elsewhere knows what it has not seen.
create table blackboard_writes (
    scope text not null,
    seq integer not null,
    key text not null,
    version integer not null,
    value json not null,
    run_id uuid not null,
    primary key (scope, seq),
    unique (scope, key, version)
);

create table sweeps (
    name text primary key,
    at timestamptz not null
);

-- Open a run: its row, its first event, its first steps. `p_run` has the columns, free of text that
-- a person wrote; `p_start` is the payload of its first event; `p_steps` is as for heartbit_append_v1.
-- Gives {"opened": true}, or what is stored under this id already: {"opened": false, "status",
-- "agent", "prompt_hash", "tenant_id"}.
create function heartbit_open_v1(p_run json, p_definition json, p_start json, p_steps json)
returns json language plpgsql as $$
declare
    v_id uuid := (p_run->>'id')::uuid;
    v_run runs;
begin
    insert into definitions (hash, definition)
    select p_run->>'definition_hash', p_definition
     where not exists (select from definitions where hash = p_run->>'definition_hash')
    on conflict (hash) do nothing;
    insert into runs (id, task_id, parent_run_id, root_run_id, step_in_parent, agent, prompt_hash,
                      definition_hash, next_seq, tenant_id, user_id, priority, deadline_at)
    values (v_id, p_run->>'task_id', (p_run->>'parent_run_id')::uuid,
            (p_run->>'root_run_id')::uuid, p_run->>'step_in_parent', p_run->>'agent',
            p_run->>'prompt_hash', p_run->>'definition_hash', 2, p_run->>'tenant_id',
            p_run->>'user_id', coalesce((p_run->>'priority')::integer, 0),
            heartbit_now() + make_interval(secs => (p_run->>'timeout_seconds')::float))
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
    return json_build_object('opened', true, 'id', v_id, 'status', 'queued');
end
$$;

-- Put events, numbered from `p_from`, and new steps down. Only for the functions of this file.
create function heartbit_insert_v1(
    p_run_id uuid, p_from integer,
    p_event_steps text[], p_types text[], p_v integer, p_payloads json[], p_steps json
) returns void language sql as $$
    insert into run_events (run_id, seq, step, type, v, payload)
    select p_run_id, p_from + (n - 1)::integer, step, type, p_v, payload
      from unnest(p_event_steps, p_types, p_payloads) with ordinality as e(step, type, payload, n);
    insert into steps (run_id, step, kind, queue, repeatable, state, dispatch_after)
    select p_run_id, s->>'step', s->>'kind', s->>'queue', (s->>'repeatable')::boolean,
           s->>'state', heartbit_now() + make_interval(secs => (s->>'delay')::float)
      from json_array_elements(p_steps) as s
$$;

-- Append events to a run, if `p_expected` is still the number of the next one.
--
-- `p_step` and `p_attempt` are the fence: the step whose outcome this is, and the attempt that holds
-- it (null, null: no step). `p_verdict` says that the lease of that attempt must have expired: it is
-- somebody else's decision about a step that is in doubt.
-- `p_event_steps`, `p_types`, `p_payloads` are the events, column by column, all of version `p_v`.
-- Text that a model or a tool wrote is in payloads, values and outputs only, which are never looked
-- into: the operators of json that give text refuse NUL.
-- `p_steps` is a list of {step, kind, queue, repeatable, state, delay}; the board's writes come as
-- columns, too. `p_runs`, `p_definitions`, `p_starts` and `p_run_steps` are runs to open.
--
-- Gives {"ok": true, "seq": next} or {"ok": false, "why": "behind"|"ended"|"unknown", "events": [what
-- is in between]}, and then has changed nothing. Raises HB001 if another attempt holds the step.
create function heartbit_append_v1(
    p_run_id uuid,
    p_expected integer,
    p_step text,
    p_attempt integer,
    p_verdict boolean,
    p_event_steps text[],
    p_types text[],
    p_v integer,
    p_payloads json[],
    p_steps json,
    p_board_scopes text[],
    p_board_keys text[],
    p_board_values json[],
    p_runs json[],
    p_definitions json[],
    p_starts json[],
    p_run_steps json[],
    p_status text,
    p_output json
) returns json language plpgsql as $$
declare
    v_status text;
    v_next integer;
begin
    update runs
       set next_seq = next_seq + coalesce(array_length(p_types, 1), 0),
           status = coalesce(p_status, status),
           output = coalesce(p_output, output),
           finished_at = case when p_status in ('succeeded', 'failed', 'cancelled')
                              then heartbit_now() else finished_at end
     where id = p_run_id and next_seq = p_expected
       and status in ('queued', 'running', 'waiting')
    returning next_seq into v_next;
    if not found then
        select status, next_seq into v_status, v_next from runs where id = p_run_id;
        return json_build_object(
            'ok', false,
            'why', case when v_status is null then 'unknown'
                        when v_next = p_expected then 'ended' else 'behind' end,
            'events', heartbit_events_v1(p_run_id, p_expected)
        );
    end if;
    if p_step is not null then
        update steps
           set state = 'done', lease_owner = null, lease_expires_at = null
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
    perform heartbit_board_write_v1(scope, key, value, p_run_id, null)
       from unnest(p_board_scopes, p_board_keys, p_board_values) as b(scope, key, value);
    perform heartbit_open_v1(run, definition, start, run_steps)
       from unnest(p_runs, p_definitions, p_starts, p_run_steps)
            as r(run, definition, start, run_steps);
    return json_build_object('ok', true, 'seq', v_next);
end
$$;

-- The events of a run from `p_from` on, oldest first, as a JSON list.
create function heartbit_events_v1(p_run_id uuid, p_from integer)
returns json language sql stable as $$
    select coalesce(
        json_agg(json_build_object('seq', seq, 'v', v, 'payload', payload) order by seq), '[]'
    )
      from run_events where run_id = p_run_id and seq >= p_from
$$;

-- Claim a step for a new attempt, and get what is needed to work on it.
--
-- Gives {"claimed": true, "attempt", "cancelled", "status", "seq", "events"}, the events being those
-- after `p_known`, or {"claimed": false, "why": "done"|"leased"|"in_doubt"|"external"|"ended"
-- |"unknown", ...the same}. A step whose lease has expired is claimed again if it may be repeated;
-- otherwise it is in doubt.
create function heartbit_claim_v1(
    p_run_id uuid, p_step text, p_owner text, p_lease_seconds float, p_known integer
) returns json language plpgsql as $$
declare
    v_attempt integer;
    v_step steps;
    v_run runs;
    v_why text;
begin
    update steps
       set attempt = attempt + 1,
           lost_attempts = lost_attempts + (state = 'running')::integer,
           state = 'running', lease_owner = p_owner,
           lease_expires_at = heartbit_now() + make_interval(secs => p_lease_seconds)
     where run_id = p_run_id and step = p_step
       and (state = 'pending'
            or state = 'running' and repeatable and lease_expires_at < heartbit_now())
       and exists (select from runs where id = p_run_id
                      and status in ('queued', 'running', 'waiting'))
    returning attempt into v_attempt;
    select * into v_run from runs where id = p_run_id;
    if v_attempt is null then
        select * into v_step from steps where run_id = p_run_id and step = p_step;
        v_why := case
            when v_run.id is null or v_step.run_id is null then 'unknown'
            when v_run.status in ('succeeded', 'failed', 'cancelled') then 'ended'
            when v_step.state = 'running' and v_step.lease_expires_at >= heartbit_now()
                then 'leased'
            when v_step.state = 'running' then 'in_doubt'
            else v_step.state end;
        v_attempt := v_step.attempt;
    end if;
    return json_build_object(
        'claimed', v_why is null,
        'why', v_why,
        'attempt', v_attempt,
        'status', v_run.status,
        'seq', v_run.next_seq,
        'cancelled', exists (select from runs where id = v_run.root_run_id
                                and cancel_requested_at is not null),
        'events', heartbit_events_v1(p_run_id, p_known + 1)
    );
end
$$;

-- Write a key of a blackboard; `p_expected` (null: whatever) must be its version. Gives the new
-- version, or null if the version was another one. Two writers of one version meet in the unique
-- constraint, where the second fails and tries again.
create function heartbit_board_write_v1(
    p_scope text, p_key text, p_value json, p_run_id uuid, p_expected integer
) returns integer language plpgsql as $$
declare
    v_version integer;
begin
    perform pg_advisory_xact_lock(hashtextextended('heartbit.blackboard:' || p_scope, 0));
    select coalesce(max(version), 0) into v_version
      from blackboard_writes where scope = p_scope and key = p_key;
    if p_expected is not null and p_expected <> v_version then
        return null;
    end if;
    insert into blackboard_writes (scope, seq, key, version, value, run_id)
    values (p_scope,
            (select coalesce(max(seq), 0) + 1 from blackboard_writes where scope = p_scope),
            p_key, v_version + 1, p_value, p_run_id);
    return v_version + 1;
end
$$;
