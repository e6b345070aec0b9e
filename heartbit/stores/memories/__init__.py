"""What agents remember: one protocol, kept in this process or in Postgres."""
