"""The machine side: the launcher that forks engines and the hosts that hold accelerators."""
