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
