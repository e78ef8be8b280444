"""When and where trials run: the loop, placement, pruning, budgets, what watches a study."""
