"""The experiment of the AgentHPO paper (https://arxiv.org/abs/2402.01881), on real trainings.

As in its Section 4.2, each Creator gets ten runs of ten trials. The best value so far is compared
after trials 1, 3, 5 and 10, and the best of 100 random trials is the baseline for a human. A run
is an ordinary study of a ready task, in a separate home, and is resumed, read and reported like any
other. The paper's two quadratic functions (Section 5.2) are tasks too.
"""
