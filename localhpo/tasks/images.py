"""Images of a ready task: decoded once and held as bytes, so that an epoch costs no decoding.

Arrays are (N, 3, H, W), uint8. Class folders are `CLASS/NAME.jpg`, in a folder or a tar.gz.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def class_images(path: Path) -> tuple[list[bytes], list[str]]:
    """Return the encoded images of class folders and the class of each, by class and name.

    Raises:
        ValueError: there are none.
    """
    found = _of_folder(path) if path.is_dir() else _of_archive(path)
    if not found:
        raise ValueError(f"{path} must hold class folders with .jpg or .png images; it has none")
    ordered = sorted(found)
    return [found[key] for key in ordered], [label for label, _ in ordered]


def decode(encoded: Iterable[bytes | Path], size: tuple[int, int], workers: int) -> np.ndarray:
    """Return images at (height, width), decoded by so many threads."""
    height, width = size

    def one(source: bytes | Path) -> np.ndarray:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file) as image:
            image.draft("RGB", (width, height))  # a JPEG is decoded near the size wanted
            scaled = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(scaled).transpose(2, 0, 1)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return np.stack(list(pool.map(one, encoded)))


def as_numbers(images: torch.Tensor) -> torch.Tensor:
    """Return bytes as numbers in [-1, 1]."""
    return images.float() / 127.5 - 1


def flipped(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images, half of them mirrored left to right, and which ones those are."""
    which = torch.rand(len(images), device=images.device) < 0.5
    return torch.where(which[:, None, None, None], images.flip(3), images), which


def shuffled_batches(count: int, size: int) -> list[torch.Tensor]:
    """Return the indices of one epoch's batches.

    What is left over sits the epoch out: batch norm cannot learn from a single image.
    """
    batches = list(torch.randperm(count).split(min(size, count)))
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < size else batches


def _of_folder(path: Path) -> dict[tuple[str, str], bytes]:
    return {
        (file.parent.name, file.name): file.read_bytes()
        for file in path.glob("*/*")
        if file.suffix.lower() in _SUFFIXES
    }


def _of_archive(path: Path) -> dict[tuple[str, str], bytes]:
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePath(member.name)
            file = archive.extractfile(member) if name.suffix.lower() in _SUFFIXES else None
            if file is not None:
                found[name.parent.name, name.name] = file.read()
    return found
