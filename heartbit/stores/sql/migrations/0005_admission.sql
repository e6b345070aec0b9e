-- Runs may wait for their admission, so that no more than some are at work at a time.
alter table steps drop constraint steps_state_check;
alter table steps add constraint steps_state_check
    check (state in ('pending', 'running', 'external', 'done', 'held'));

-- Runs whose steps are held: a queue that is read from its head.
create table admissions (
    run_id uuid primary key,
    priority integer not null,
    created_at timestamptz not null
);
create index admissions_in_order on admissions (priority desc, created_at, run_id);

-- Open a run: its row, its first event, its first steps. `p_run` has the columns, free of text that
-- a person wrote; `p_start` is the payload of its first event; `p_steps` is as for heartbit_append_v1.
-- Gives {"opened": true}, or what is stored under this id already: {"opened": false, "status",
-- "agent", "prompt_hash", "tenant_id"}.
create or replace function heartbit_open_v1(p_run json, p_definition json, p_start json, p_steps json)
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

-- The run is over: nobody needs to do or decide anything for it any more.
create or replace function heartbit_close_v1(p_run_id uuid) returns void language plpgsql as $$
begin
    update steps set state = 'done', lease_owner = null, lease_expires_at = null
     where run_id = p_run_id and state <> 'done';
    update approvals set decided_at = heartbit_now()
     where run_id = p_run_id and decided_at is null;
    delete from timers where run_id = p_run_id;
    delete from admissions where run_id = p_run_id;
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
