"""The parts of the fake engine: a pure timing model, a prefix cache, and a small HTTP server."""
