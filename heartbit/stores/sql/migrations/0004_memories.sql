-- What agents remember: entries, what they are found by, and their vectors.

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
);
create index memories_namespace on memories (tenant_id, user_id, agent);
create index memories_terms on memories using gin (terms);
create index memories_related on memories using gin (related_ids);
