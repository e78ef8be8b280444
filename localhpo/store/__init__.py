"""Where studies live: a journal per study, and DuckDB. See `store` for how the two relate."""

from localhpo.store.database import DatabaseBusyError
from localhpo.store.paths import default_home, study_name
from localhpo.store.records import Event, StudyRecord
from localhpo.store.store import Store
from localhpo.store.writer import StudyWriter

__all__ = [
    "DatabaseBusyError",
    "Event",
    "Store",
    "StudyRecord",
    "StudyWriter",
    "default_home",
    "study_name",
]
