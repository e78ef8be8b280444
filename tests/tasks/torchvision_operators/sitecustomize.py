"""On the path of a child process: declares the operators that a torchvision for CUDA wants.

PyPI's torchvision has its operators compiled for CUDA. Under a CPU build of torch they do not
load, and `import torchvision`, which timm does, ends at registering more about them. A ResNet uses
neither. A declaration must outlive its `Library`; torch is slow to import, so only timm's
programs get this folder on their path.
"""

import torch

library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
