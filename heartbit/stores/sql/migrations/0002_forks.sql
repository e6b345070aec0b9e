-- A run may begin with the first events of another one.
alter table blackboard_writes add column run_seq integer not null default 0;

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

-- Write keys of blackboards; `p_expected` (null: whatever) must be their versions, else HB002 is
-- raised. Scopes are locked in one order and until the end of the transaction, so that their writes
-- are numbered without gaps in the order in which they become visible. Gives the last new version.
create or replace function heartbit_board_writes_v1(
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
