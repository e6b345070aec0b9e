-- Documents that agents can search, in pieces that can be cited.

-- Documents by collection and source: a path or an address, which is what a citation names. recipe
-- says how the text was taken out and cut, content_hash what it was taken out of: a document whose
-- two are the same is not read again. etag and last_modified are a web server's.
create table knowledge_documents (
    collection text not null,
    source text not null,
    title json not null,
    content_hash text not null,
    recipe text not null,
    etag text,
    last_modified text,
    indexed_at timestamptz not null,
    primary key (collection, source)
);

-- The pieces that are found and cited. entry is text and heading as JSON; terms, counts, length and
-- the embedding are as in memories.
create table knowledge_chunks (
    collection text not null,
    source text not null,
    number integer not null,
    entry json not null,
    first_line integer not null,
    last_line integer not null,
    terms text[] not null,
    counts integer[] not null,
    length integer not null,
    embedding real[],
    embedding_model text,
    primary key (collection, source, number),
    foreign key (collection, source) references knowledge_documents on delete cascade
);
create index knowledge_chunks_terms on knowledge_chunks using gin (terms);
