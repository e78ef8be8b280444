"""ENet, a small network for semantic segmentation (Paszke et al. 2016, arXiv 1606.02147).

Shapes are (N, C, H, W); height and width must be multiples of 8. Names and numbers are those of
the paper's Table 1 and Figure 2. The activation is a function that makes one for so many channels.
"""

import torch
from torch import nn


def conv(channels_in, channels, kernel, activation=None, **settings):
    """Return a convolution with batch norm and, where given, an activation."""
    layers = [
        nn.Conv2d(channels_in, channels, kernel, bias=False, **settings),
        nn.BatchNorm2d(channels),
    ]
    return nn.Sequential(*layers, *([activation(channels)] if activation else []))


class Initial(nn.Module):
    """Halve the image: 13 channels by convolution, 3 by pooling."""

    def __init__(self, activation):
        super().__init__()
        self.conv = nn.Conv2d(3, 13, 3, stride=2, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.rest = nn.Sequential(nn.BatchNorm2d(16), activation(16))

    def forward(self, x):
        return self.rest(torch.cat([self.conv(x), self.pool(x)], 1))


class Bottleneck(nn.Module):
    """A residual block through a quarter of the channels."""

    def __init__(self, channels, activation, dropout, dilation=1, asymmetric=False):
        super().__init__()
        inner = channels // 4
        if asymmetric:
            middle = nn.Sequential(
                nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False),
                conv(inner, inner, (1, 5), activation, padding=(0, 2)),
            )
        else:
            middle = conv(inner, inner, 3, activation, padding=dilation, dilation=dilation)
        self.branch = nn.Sequential(
            conv(channels, inner, 1, activation),
            middle,
            conv(inner, channels, 1),
            nn.Dropout2d(dropout),
        )
        self.activation = activation(channels)

    def forward(self, x):
        return self.activation(x + self.branch(x))


class Down(nn.Module):
    """Halve height and width; keep where each maximum was, for `Up`."""

    def __init__(self, channels_in, channels, activation, dropout):
        super().__init__()
        inner = channels_in // 4
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.branch = nn.Sequential(
            conv(channels_in, inner, 2, activation, stride=2),
            conv(inner, inner, 3, activation, padding=1),
            conv(inner, channels, 1),
            nn.Dropout2d(dropout),
        )
        self.activation = activation(channels)

    def forward(self, x):
        branch = self.branch(x)
        pooled, where = self.pool(x)
        zeros = pooled.new_zeros(
            len(x), branch.shape[1] - pooled.shape[1], *pooled.shape[2:]
        )  # the channels that pooling does not have
        return self.activation(torch.cat([pooled, zeros], 1) + branch), where


class Up(nn.Module):
    """Double height and width; put each value where its maximum was."""

    def __init__(self, channels_in, channels, activation, dropout):
        super().__init__()
        inner = channels_in // 4
        self.main = conv(channels_in, channels, 1)
        self.unpool = nn.MaxUnpool2d(2)
        self.branch = nn.Sequential(
            conv(channels_in, inner, 1, activation),
            nn.ConvTranspose2d(inner, inner, 2, stride=2, bias=False),
            nn.BatchNorm2d(inner),
            activation(inner),
            conv(inner, channels, 1),
            nn.Dropout2d(dropout),
        )
        self.activation = activation(channels)

    def forward(self, x, where):
        return self.activation(self.unpool(self.main(x), where) + self.branch(x))


def middle_stage(activation):
    """Return stage 2 without its downsampling, which is also stage 3."""
    kinds = [
        {},
        {"dilation": 2},
        {"asymmetric": True},
        {"dilation": 4},
        {},
        {"dilation": 8},
        {"asymmetric": True},
        {"dilation": 16},
    ]
    return [Bottleneck(128, activation, 0.1, **kind) for kind in kinds]


class ENet(nn.Module):
    """Images (N, 3, H, W) -> logits (N, classes, H, W)."""

    def __init__(self, classes, activation):
        super().__init__()
        self.initial = Initial(activation)
        self.down1 = Down(16, 64, activation, 0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, activation, 0.01) for _ in range(4)))
        self.down2 = Down(64, 128, activation, 0.1)
        self.stages23 = nn.Sequential(*middle_stage(activation), *middle_stage(activation))
        self.up4 = Up(128, 64, activation, 0.1)
        self.stage4 = nn.Sequential(*(Bottleneck(64, activation, 0.1) for _ in range(2)))
        self.up5 = Up(64, 16, activation, 0.1)
        self.stage5 = Bottleneck(16, activation, 0.1)
        self.full = nn.ConvTranspose2d(16, classes, 2, stride=2)

    def forward(self, x):
        x, where1 = self.down1(self.initial(x))
        x, where2 = self.down2(self.stage1(x))
        x = self.stage4(self.up4(self.stages23(x), where2))
        return self.full(self.stage5(self.up5(x, where1)))
