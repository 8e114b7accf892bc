"""The registry of models and the binding of engines to hosts."""
