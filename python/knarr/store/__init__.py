"""Records in SQLite, one module a noun. Knows nothing of how the engine uses them."""
