"""What `scripts/bench_gateway.py` is made of: an upstream, a load, and the gateways between."""
