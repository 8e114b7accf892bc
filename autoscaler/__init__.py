"""How many engines a model should have: pure functions from a snapshot to a decision."""
