"""Allocate 1.5 times the device's memory, slowly enough to be measured."""

import time

import torch

from localhpo.reporter import report

report(step=0, loss=1.0)
_, total = torch.cuda.mem_get_info()
blocks = []
for _ in range(12):
    blocks.append(torch.empty(total // 8, dtype=torch.uint8, device="cuda"))
    time.sleep(0.8)
report(step=1, loss=0.5)
