"""History from before LocalHPO: reads trials that other programs kept, and plans what to take.

Readers (`optuna`, `tables`) turn a file into a `Source`; `plan` puts its rows into a space,
which the file states, the user gives, or `inferring` reads off the values.
"""

from localhpo.importing.opening import read
from localhpo.importing.plan import Plan, plan
from localhpo.importing.source import Left, Row, Source

__all__ = ["Left", "Plan", "Row", "Source", "plan", "read"]
