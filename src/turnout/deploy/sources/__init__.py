"""Where artifacts come from: one file per kind of place, and the cache that keeps what was fetched."""
