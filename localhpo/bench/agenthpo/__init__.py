"""The protocol of the AgentHPO paper (https://arxiv.org/abs/2402.01881), on real trainings.

Section 4.2 of it: each Creator gets ten trials a run and ten runs; what counts is the best so
far after trials 1, 3, 5 and 10; the best of 100 random trials stands for a human's. A run is an
ordinary study of a ready task, in a home of its own, so that it is resumed, read and reported
like any other. The paper's two quadratic functions (Section 5.2) are two more tasks.
"""
