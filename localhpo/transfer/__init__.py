"""What past studies and past data sets offer to a new study.

Pure: it is given past studies (`past_study`), computes how similar their tasks are
(`similarity`), and projects (`projection`) their best configurations onto the space of another
task (`retrieval`). `source_tasks` reads the meta-data of past data sets that comes with a model.
"""

from localhpo.transfer.names import find_known_name, plain_name
from localhpo.transfer.past_study import (
    MIN_RANKED_TRIALS,
    PastStudy,
    split_usable,
    to_single_objective,
    unusable_reason,
)
from localhpo.transfer.projection import project_config, project_value
from localhpo.transfer.retrieval import RetrievedConfig, retrieve_configs
from localhpo.transfer.similarity import MIN_SIMILARITY, Similarity, similarity

__all__ = [
    "MIN_RANKED_TRIALS",
    "MIN_SIMILARITY",
    "PastStudy",
    "RetrievedConfig",
    "Similarity",
    "find_known_name",
    "plain_name",
    "project_config",
    "project_value",
    "retrieve_configs",
    "similarity",
    "split_usable",
    "to_single_objective",
    "unusable_reason",
]
