"""Where studies live: a spool per study, and DuckDB. See `store` for how the two relate."""

from localhpo.store.database import DatabaseBusyError
from localhpo.store.paths import default_home, study_name
from localhpo.store.records import Event, StudyRecord
from localhpo.store.store import Store
from localhpo.store.writer import Writer

__all__ = [
    "DatabaseBusyError",
    "Event",
    "Store",
    "StudyRecord",
    "Writer",
    "default_home",
    "study_name",
]
