-- Steps that whoever appends them sends after the commit: that they are sent is written down with
-- them, and not in a transaction of its own.
create or replace function heartbit_insert_v1(
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
