-- knowledge_filters --
-- The conditions of a search; what is null is no condition.
c.collection = %(collection)s
    and (%(source_filter)s::text is null or starts_with(c.source, %(source_filter)s))

-- knowledge_candidates --
-- The best matches inside the filters by words and by meaning, with both scores.
with inside as not materialized (
    select c.source || '#' || lpad(c.number::text, 8, '0') as id, c.source, c.number, c.length,
           c.terms, c.counts, c.embedding, c.embedding_model
      from knowledge_chunks c where {filters}
), corpus as materialized (
    select count(*)::float8 as n, greatest(avg(length), 1)::float8 as average from inside
), hits as materialized (
    select i.id, i.source, i.number, i.length, t.term,
           i.counts[array_position(i.terms, t.term)]::float8 as tf
      from inside i join unnest(%(terms)s::text[]) as t (term) on t.term = any (i.terms)
     where i.terms && %(terms)s::text[]
), frequencies as materialized (
    select term, count(*)::float8 as df from hits group by term
), scores as (
    select id, source, number, sum(ln(1 + (n - df + 0.5) / (df + 0.5)) * tf * 2.2
                                   / (tf + 1.2 * (0.25 + 0.75 * length / average))) as score
      from hits join frequencies using (term) cross join corpus group by id, source, number
), words as (
    select id, source, number, score from scores
     order by round(score * 1e9) desc, id collate "C" limit %(candidates)s
), meaning as (
    {meaning}
)
select best.id, c.source, c.number, c.entry::text, c.first_line, c.last_line, d.title::text,
       best.by_words, best.by_meaning
  from (select coalesce(words.id, meaning.id) as id,
               coalesce(words.source, meaning.source) as source,
               coalesce(words.number, meaning.number) as number,
               words.score as by_words, meaning.similarity as by_meaning
          from words full join meaning on meaning.id = words.id) as best
  join knowledge_chunks c on c.collection = %(collection)s and c.source = best.source
       and c.number = best.number
  join knowledge_documents d on d.collection = c.collection and d.source = c.source

-- knowledge_meaning --
-- The nearest vectors of one model inside the filters. Equals come by id, and all of them are looked
-- at: an index gives distances in order and nothing else, so the ids have to be sorted outside.
select id, source, number, nullif(similarity, 'nan') as similarity from (
    select id, source, number, embedding::{type} <=> %(vector)s::real[]::{type} as distance,
           1 - (embedding::{type} <=> %(vector)s::real[]::{type}) as similarity
      from inside where embedding_model = {model}
     order by distance fetch first (%(candidates)s) rows with ties
) as nearest order by distance, id collate "C" limit %(candidates)s

-- knowledge_no_meaning --
-- In place of the nearest vectors when there are none to compare.
select null::text as id, null::text as source, null::integer as number, null::float8 as similarity
 where false

-- knowledge_documents --
-- What is known of documents; of all, or of some.
select d.source, d.title::text, d.content_hash, d.recipe, d.etag, d.last_modified, d.indexed_at,
       (select count(*) from knowledge_chunks c
         where c.collection = d.collection and c.source = d.source) as chunks
  from knowledge_documents d
 where d.collection = %(collection)s
   and (%(sources)s::text[] is null or d.source = any (%(sources)s))
 order by d.source collate "C"

-- knowledge_put --
-- A document as it is now; its chunks follow in the same transaction.
insert into knowledge_documents as d (collection, source, title, content_hash, recipe, etag,
    last_modified, indexed_at)
values (%(collection)s, %(source)s, %(title)s, %(content_hash)s, %(recipe)s, %(etag)s,
    %(last_modified)s, heartbit_now())
on conflict (collection, source) do update set title = excluded.title,
    content_hash = excluded.content_hash, recipe = excluded.recipe, etag = excluded.etag,
    last_modified = excluded.last_modified, indexed_at = excluded.indexed_at

-- knowledge_clear --
-- The chunks that documents had before.
delete from knowledge_chunks
 where collection = %(collection)s and source = any (%(sources)s)

-- knowledge_copy --
-- Many chunks at once.
copy knowledge_chunks (collection, source, number, entry, first_line, last_line, terms, counts,
    length) from stdin

-- knowledge_confirm --
-- A document that has not changed, with what its server says of it now.
update knowledge_documents set etag = %(etag)s, last_modified = %(last_modified)s
 where collection = %(collection)s and source = %(source)s

-- knowledge_remove --
-- Documents with all of their chunks.
with locked as (
    select source from knowledge_documents
     where collection = %(collection)s and source = any (%(sources)s)
     order by source collate "C" for update
)
delete from knowledge_documents d using locked
 where d.collection = %(collection)s and d.source = locked.source
returning d.source

-- knowledge_remove_except --
-- Every document that is not among some.
with locked as (
    select source from knowledge_documents
     where collection = %(collection)s and source <> all (%(sources)s)
     order by source collate "C" for update
)
delete from knowledge_documents d using locked
 where d.collection = %(collection)s and d.source = locked.source
returning d.source

-- knowledge_not_embedded --
-- Chunks that have no vector of a model; of all documents, or of some.
select source, number, entry::text from knowledge_chunks
 where collection = %(collection)s
   and (%(sources)s::text[] is null or source = any (%(sources)s))
   and (embedding_model is null
        or left(embedding_model, length(%(model)s) + 1) <> %(model)s || '/')
 order by source collate "C", number limit %(limit)s

-- knowledge_embed --
-- The vector of a chunk that has not changed since it was read.
update knowledge_chunks set embedding = %(embedding)s, embedding_model = %(embedding_model)s
 where collection = %(collection)s and source = %(source)s and number = %(number)s
   and entry::text = %(entry)s
