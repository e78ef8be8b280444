"""What no stand-in can show, checked on a machine with a GPU."""
