"""The built-in demo model `builtin://guide`: its text, its training and its weights."""
