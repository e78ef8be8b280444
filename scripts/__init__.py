"""Programs for the development of LocalHPO; not in the wheel."""
