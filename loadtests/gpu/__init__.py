"""One script that proves the platform on a machine: bare engine, platform, starts, limits."""
