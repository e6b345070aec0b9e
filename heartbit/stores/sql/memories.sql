-- memory_put --
-- Keep a memory; nothing if its id is that of somebody else's. Its age and accesses stay.
insert into memories as m (tenant_id, user_id, agent, id, entry, category, memory_type,
    confidentiality, tags, importance, strength, access_count, created_at, last_accessed,
    related_ids, terms, counts, length, embedding, embedding_model)
values (%(tenant_id)s, %(user_id)s, %(agent)s, %(id)s, %(entry)s, %(category)s, %(memory_type)s,
    %(confidentiality)s, %(tags)s, %(importance)s, %(strength)s,
    %(access_count)s, %(created_at)s, %(last_accessed)s,
    %(related_ids)s, %(terms)s, %(counts)s, %(length)s, %(embedding)s, %(embedding_model)s)
on conflict (tenant_id, id) do update set entry = excluded.entry, category = excluded.category,
    memory_type = excluded.memory_type, confidentiality = excluded.confidentiality,
    tags = excluded.tags, importance = excluded.importance, strength = excluded.strength,
    related_ids = excluded.related_ids, terms = excluded.terms, counts = excluded.counts,
    length = excluded.length, embedding = excluded.embedding,
    embedding_model = excluded.embedding_model
 where (m.user_id, m.agent) = (excluded.user_id, excluded.agent)
returning true

-- memory_columns --
-- What a memory is made of.
m.tenant_id, m.user_id, m.agent, m.id, m.entry::text, m.importance, m.strength, m.access_count,
    m.created_at, m.last_accessed, m.related_ids

-- memory_filters --
-- The conditions of a query; what is null is no condition.
m.tenant_id = %(tenant_id)s and m.user_id = %(user_id)s
    and (%(agent)s::text is null or m.agent = %(agent)s)
    and (%(category)s::text is null or m.category = %(category)s)
    and (%(memory_type)s::text is null or m.memory_type = %(memory_type)s)
    and (%(tags)s::text[] is null or m.tags && %(tags)s)
    and (%(levels)s::text[] is null or m.confidentiality = any(%(levels)s))
    and (%(min_strength)s::float8 is null or m.strength * exp(-0.005
         * greatest(extract(epoch from heartbit_now() - m.last_accessed)::float8, 0) / 3600)
         >= %(min_strength)s)

-- memory_candidates --
-- The best matches inside the filters by words and by meaning, with both scores. What holds a term
-- is asked of the index, term by term: looking for all of them in each memory takes twice as long.
with inside as not materialized (
    select m.id, m.length, m.terms, m.counts, m.embedding, m.embedding_model
      from memories m where {filters}
), corpus as materialized (
    select count(*)::float8 as n, greatest(avg(length), 1)::float8 as average from inside
), hits as materialized (
    select i.id, i.length, t.term, i.counts[array_position(i.terms, t.term)]::float8 as tf
      from unnest(%(terms)s::text[]) as t (term) join inside i on i.terms @> array[t.term]
), frequencies as materialized (
    select term, 2.2 * ln(1 + (n - count(*) + 0.5) / (count(*) + 0.5)) as weight,
           1.2 * 0.75 / average as per_length
      from hits cross join corpus group by term, n, average
), scores as (
    select id, sum(weight * tf / (tf + 1.2 * 0.25 + per_length * length)) as score
      from hits join frequencies using (term) group by id
), words as (
    select id, score from scores
     order by round(score * 1e9) desc, id collate "C" limit %(candidates)s
), meaning as (
    {meaning}
)
select {columns}, words.score as by_words, meaning.similarity as by_meaning,
       heartbit_now() as now
  from memories m left join words on words.id = m.id left join meaning on meaning.id = m.id
 where m.tenant_id = %(tenant_id)s
   and m.id in (select id from words union all select id from meaning)

-- memory_meaning --
-- The nearest vectors of one model inside the filters. Equals come by id, and all of them are looked
-- at: an index gives distances in order and nothing else, so the ids have to be sorted outside.
select id, nullif(similarity, 'nan') as similarity from (
    select id, embedding::{type} <=> %(vector)s::real[]::{type} as distance,
           1 - (embedding::{type} <=> %(vector)s::real[]::{type}) as similarity
      from inside where embedding_model = {model}
     order by distance fetch first (%(candidates)s) rows with ties
) as nearest order by distance, id collate "C" limit %(candidates)s

-- memory_no_meaning --
-- In place of the nearest vectors when there are none to compare.
select null::text as id, null::float8 as similarity where false

-- memory_best --
-- Without words to search for: what is worth most inside the filters.
select {columns}, null::float8 as by_words, null::float8 as by_meaning, heartbit_now() as now
  from memories m where {filters}
 order by %(recency)s::float8 * exp(-0.01
             * greatest(extract(epoch from heartbit_now() - m.created_at)::float8, 0) / 3600)
         + %(importance)s::float8 * (m.importance - 1) / 9
         + %(strength)s::float8 * m.strength * exp(-0.005
             * greatest(extract(epoch from heartbit_now() - m.last_accessed)::float8, 0) / 3600) desc,
          m.id collate "C"
 limit %(limit)s

-- memory_inside --
-- Those of some memories that are inside the filters.
select {columns} from memories m where {filters} and m.id = any (%(ids)s)

-- memory_reinforce --
-- Memories that were recalled: stronger, and counted.
with locked as (
    select tenant_id, id from memories where tenant_id = %(tenant_id)s and id = any (%(ids)s)
     order by id for update
)
update memories m set access_count = access_count + 1, last_accessed = %(now)s,
       strength = least(1, strength * exp(-0.005
           * greatest(extract(epoch from %(now)s - last_accessed)::float8, 0) / 3600) + %(more)s)
  from locked where m.tenant_id = locked.tenant_id and m.id = locked.id

-- memory_own --
-- Memories of a namespace by their ids, to be changed in this transaction.
select {columns} from memories m
 where (m.tenant_id, m.user_id, m.agent) = (%(tenant_id)s, %(user_id)s, %(agent)s)
   and m.id = any (%(ids)s) order by m.id for update

-- memory_get --
-- Memories of a namespace by their ids.
select {columns} from memories m
 where (m.tenant_id, m.user_id, m.agent) = (%(tenant_id)s, %(user_id)s, %(agent)s)
   and m.id = any (%(ids)s)

-- memory_change --
-- What a memory says now, and what it is found by.
update memories set entry = %(entry)s, terms = %(terms)s, counts = %(counts)s, length = %(length)s,
       embedding = %(embedding)s, embedding_model = %(embedding_model)s
 where tenant_id = %(tenant_id)s and id = %(id)s

-- memory_linking --
-- Memories that are linked to some others, to be changed in this transaction.
select id, related_ids from memories
 where tenant_id = %(tenant_id)s and related_ids && %(ids)s::text[] and id <> all (%(ids)s)
 order by id for update

-- memory_relink --
-- The links of a memory.
update memories set related_ids = %(related_ids)s where tenant_id = %(tenant_id)s and id = %(id)s

-- memory_delete --
-- Forget memories.
delete from memories where tenant_id = %(tenant_id)s and id = any (%(ids)s)

-- memory_faded --
-- Old memories that are weak by now; in a namespace, or everywhere.
select tenant_id, array_agg(id order by id) as ids from memories
 where (%(agent)s::text is null
        or (tenant_id, user_id, agent) = (%(tenant_id)s, %(user_id)s, %(agent)s))
   and created_at < heartbit_now() - make_interval(secs => 3600 * %(min_age_hours)s::float8)
   and strength * exp(-0.005
           * greatest(extract(epoch from heartbit_now() - last_accessed)::float8, 0) / 3600)
       < %(min_strength)s
 group by tenant_id order by tenant_id

-- memory_export --
-- All memories of a tenant's user after an id.
select {columns} from memories m
 where m.tenant_id = %(tenant_id)s and m.user_id = %(user_id)s
   and (%(agent)s::text is null or m.agent = %(agent)s) and m.id collate "C" > %(after)s
 order by m.id collate "C" limit %(limit)s

-- memory_unreflected --
-- How important together the episodic memories are that came since the last other one.
with own as (
    select memory_type, importance, created_at from memories
     where (tenant_id, user_id, agent) = (%(tenant_id)s, %(user_id)s, %(agent)s)
)
select coalesce(sum(importance), 0) as importance from own
 where memory_type = 'episodic' and created_at
       > coalesce((select max(created_at) from own where memory_type <> 'episodic'), '-infinity')

-- memory_unembedded --
-- How many memories have no vector of a model.
select count(*) as count from memories m
 where m.embedding_model is null
    or left(m.embedding_model, length(%(model)s) + 1) <> %(model)s || '/'

-- memory_models --
-- How many vectors there are of each model and length.
select embedding_model as key, count(*) as count from memories
 where embedding_model is not null group by embedding_model

-- memory_not_embedded --
-- Memories after an id that have no vector of a model.
select {columns} from memories m
 where (m.embedding_model is null
        or left(m.embedding_model, length(%(model)s) + 1) <> %(model)s || '/')
   and m.id collate "C" > %(after)s
 order by m.id collate "C" limit %(limit)s

-- memory_embed --
-- The vector of a memory that has not changed since it was read.
update memories set embedding = %(embedding)s, embedding_model = %(embedding_model)s
 where tenant_id = %(tenant_id)s and id = %(id)s and entry::text = %(entry)s
