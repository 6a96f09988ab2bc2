"""Dagster, one file per concept, and the only package that imports it. ``build`` assembles what
``factory`` (assets, jobs), ``schedules``, ``resources`` and ``io_manager`` make of endpoints."""
