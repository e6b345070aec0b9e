-- A step may be put off: its model call goes on later, and holds no worker meanwhile. Both columns are
-- null for every step that never was.
alter table steps add column not_before timestamptz, add column tried json;

-- Claim a step for a new attempt, and get what is needed to work on it.
--
-- Gives {"claimed": true, "attempt", "tried", "cancelled", "status", "seq", "events"}, the events being
-- those after `p_known`, or {"claimed": false, "why": "done"|"leased"|"in_doubt"|"poisoned"|"external"
-- |"ended"|"unknown", ...the same}. A step whose lease has expired is claimed again if it may be
-- repeated; otherwise it is in doubt, and only a caller who names the attempt in doubt (`p_doubt`)
-- gets it, also after it was parked.
create or replace function heartbit_claim_v1(
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

-- Win the right to send steps that were never sent. They are sent again after `p_again_seconds` if
-- nobody has claimed them by then.
create or replace function heartbit_take_dispatch_v1(p_run_id uuid, p_steps text[], p_again_seconds float)
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
