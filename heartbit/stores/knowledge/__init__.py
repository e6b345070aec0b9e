"""Where documents and their chunks are kept: the protocol, in this process, and in PostgreSQL."""
