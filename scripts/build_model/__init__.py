"""Makes the built-in language model. See `__main__` for its steps."""
