"""What the trials of a study show: pure functions, and the Markdown report.

`summary.summarize` computes every number that the terminal, the report and `--json` show;
`formatting` spells them.
"""
