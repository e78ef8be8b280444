"""Resources of a machine that studies share: inventory, placement, memory estimates, broker."""
