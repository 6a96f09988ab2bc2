"""Real processes, really killed (SIGKILL): the command line's, Dagster's runs, Dagster's daemons.
What they leave behind must heal by itself."""
