"""What `scripts/bench_cold_start.py` is made of."""
