-- A run may end with a step that puts its agent's memories together.

alter table steps drop constraint steps_kind_check,
    add constraint steps_kind_check
        check (kind in ('model', 'tool', 'sub_run', 'summary', 'memories'));
