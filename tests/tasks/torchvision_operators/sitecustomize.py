"""On the path of a child process: lets a torchvision of another build than torch be imported.

PyPI's torchvision has its operators compiled for CUDA. Beside a CPU build of torch they do not
load, and `import torchvision`, which timm does, ends where it says more about two of them. A
ResNet uses neither, so that declaring them is enough. Only programs with timm get this folder on
their path: importing torch takes seconds.
"""

import importlib.util
import sys

import torch

NMS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

if importlib.util.find_spec("torchvision"):
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # Operators go when their library does, so it keeps a name.
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(NMS)
        library.define(f"q{NMS}")
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # imported in part
