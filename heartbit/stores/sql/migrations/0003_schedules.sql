-- Schedules start runs by themselves: what beat reads, kept where several beats agree on it.

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
