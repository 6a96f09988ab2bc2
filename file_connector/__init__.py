"""File Connector: every new or changed file of your customers' Drive folders and ACC projects,
one row each, in Supabase, exactly once.

Start reading at ``definitions.py`` (Dagster) or ``cli.py`` (terminal); both are thin and lead to
``sync`` (the engine), which stands between ``connectors`` (sources) and ``destination`` (tables).
"""

__version__ = "0.1.0"
