"""What should be served, kept where it survives: revisions, documents, events and leases, in SQLite or PostgreSQL."""
