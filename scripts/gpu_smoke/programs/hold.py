"""Hold so many MB of the device until the input ends; print free and total memory by torch."""

import json
import sys

import torch

block = torch.empty(int(float(sys.argv[1]) * 2**20), dtype=torch.uint8, device="cuda")
torch.cuda.synchronize()
free, total = torch.cuda.mem_get_info()
print(json.dumps({"free_mb": free / 2**20, "total_mb": total / 2**20}), flush=True)
sys.stdin.read()
