-- Memories are changed whenever they are recalled: with room beside them no index is touched by
-- that. New terms go into their index at once: a list of those that wait would be read by every
-- recall, once for each of its words.

alter table memories set (fillfactor = 75);
alter index memories_terms set (fastupdate = off);
alter index memories_related set (fastupdate = off);
