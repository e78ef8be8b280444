"""`localhpo init`: reads the options of a script and writes a task file."""
