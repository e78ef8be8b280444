"""Hold `--mb` of the device and compute for twelve seconds."""

import sys
import time

import torch

from localhpo.reporter import report

LENGTH_S = 12.0

block = torch.empty(int(float(sys.argv[2]) * 2**20), dtype=torch.uint8, device="cuda")
a = torch.randn(2048, 2048, device="cuda")
began, step = time.monotonic(), 0
while (passed_s := time.monotonic() - began) < LENGTH_S:
    for _ in range(50):
        a = torch.tanh(a @ a)
    torch.cuda.synchronize()
    if passed_s >= step:
        step += 1
        report(step=step, loss=1 / step, reserved_mb=torch.cuda.max_memory_reserved() / 2**20)
