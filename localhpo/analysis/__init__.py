"""What the trials of a study show: pure functions, and the Markdown report.

`summary.summarize` is the one source of every number that the terminal, the report and
`--json` show; `wording` the one source of how they are spelled.
"""
