"""Problems: tasks with known values, on which Creators are compared."""
