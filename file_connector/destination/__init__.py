"""Where rows rest: one store contract, SQLite (the mock) and Postgres (Supabase) behind it."""
