"""How to speak to a source: one module per provider, no Dagster, no database, no tenant ids."""
