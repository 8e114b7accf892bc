"""The registry's schema, step by step; run by `serving.controller.migrate`."""
