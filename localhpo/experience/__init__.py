"""What past studies offer to a new one: which count, how near they are, what worked there.

Pure: it is given past studies (`past`), says how similar their tasks are (`similarity`), and
brings the best of their configurations into the space of another task (`recall`).
"""

from localhpo.experience.past import LEAST_SCORED, Past, refusal, usable
from localhpo.experience.recall import Memory, carry, recall
from localhpo.experience.similarity import LEAST_SIMILAR, Similarity, plain_name, similarity

__all__ = [
    "LEAST_SCORED",
    "LEAST_SIMILAR",
    "Memory",
    "Past",
    "Similarity",
    "carry",
    "plain_name",
    "recall",
    "refusal",
    "similarity",
    "usable",
]
