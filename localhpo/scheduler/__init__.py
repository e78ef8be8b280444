"""Decides when and where trials run: loop, placement, memory, pruning, budgets, events."""
