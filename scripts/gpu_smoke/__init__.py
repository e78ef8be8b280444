"""Checks on a machine with a GPU of what fakes in tests cannot show."""
