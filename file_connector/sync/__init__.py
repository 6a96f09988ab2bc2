"""The engine: decides what a tick and a run should do. Knows the contracts of sources and stores
(``connectors.base``, ``destination.base``), no provider, no database, no Dagster."""
