"""Images from a trained generator, a seed for each image, and the generator as a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from projgan.classes import labels_or
from projgan.config import Config, from_dict
from projgan.errors import DataError
from projgan.files import write_bytes_atomic
from projgan.generators import build_generator
from projgan.rng import Coordinates, Stream
from projgan.speed import fast
from projgan.standing_statistics import standing_statistics


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] float to 0..255 uint8, rounded and clipped."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def generate(
    generator: nn.Module,
    seed: int,
    indices: Sequence[int],
    batch: int = 64,
    truncation: float = 1.0,
    label: int | None = None,
) -> Iterator[Tensor]:
    """Samples of an EMA generator in eval mode.

    Image i depends on (seed, i) and `label` alone, whatever the batch, up to rounding. `truncation`
    other than 1 is for generators with styles. `label` is the class of all images; None = classes
    as often as in the data, where the generator has some.

    Yields:
        [B, 3, R, R] uint8 on the generator's device.

    Raises:
        ConfigError: the generator has no class `label`.
    """
    device = next(generator.parameters()).device
    z_dim = int(generator.z_dim)  # type: ignore[arg-type]
    for start in range(0, len(indices), batch):
        index = torch.tensor(indices[start : start + batch], dtype=torch.int64, device=device)
        where = Coordinates(seed, Stream.LATENT_EVAL, index)
        how = {} if truncation == 1.0 else {"truncation": truncation}
        labels = labels_or(generator, where, label)
        said: dict[str, Any] = how if labels is None else {**how, "labels": labels}
        yield to_uint8(generator(where.normal(z_dim), where, **said))


@torch.no_grad()
def interpolate(
    generator: nn.Module,
    seed: int,
    indices: Sequence[int],
    steps: int,
    truncation: float = 1.0,
    label: int | None = None,
) -> Iterator[Tensor]:
    """From each sample to the next one, and from the last to the first.

    Latents are turned into each other on the sphere; styles, where a generator has them, are
    blended. The noise stays that of the first sample; a class stays that of the sample it began at,
    or is `label` throughout.

    Yields:
        [steps + 1, 3, R, R] uint8 for each of `indices`, the sample itself first.

    Raises:
        ConfigError: the generator has no class `label`.
    """
    device = next(generator.parameters()).device
    index = torch.tensor(indices, dtype=torch.int64, device=device)
    where = Coordinates(seed, Stream.LATENT_EVAL, index)
    z = where.normal(int(generator.z_dim))  # type: ignore[arg-type]
    at = torch.linspace(0, 1, steps + 2, device=device)[:-1, None]
    noise = Coordinates(seed, Stream.LATENT_EVAL, index[:1].expand(steps + 1))
    drawn = labels_or(generator, where, label)
    for i, (a, b) in enumerate(zip(z, z.roll(-1, dims=0), strict=True)):
        how = {} if drawn is None else {"labels": drawn[i].expand(steps + 1)}
        if hasattr(generator, "synthesis"):
            same = None if drawn is None else drawn[i].expand(2)
            ends = generator.mapping(torch.stack([a, b]), same)  # type: ignore[operator]
            w = ends[:1].lerp(ends[1:], at)
            mean: Tensor = generator.mapping.mean  # type: ignore[assignment]
            yield to_uint8(generator.synthesis(mean.lerp(w, truncation), noise))  # type: ignore[operator]
        else:
            angle = torch.acos(torch.cosine_similarity(a, b, dim=0).clamp(-0.999, 0.999))
            mixed = (torch.sin((1 - at) * angle) * a + torch.sin(at * angle) * b) / angle.sin()
            yield to_uint8(generator(mixed, noise, **how))


def image_grid(images: np.ndarray, columns: int) -> Image.Image:
    """[N, 3, H, W] uint8 -> one picture of N tiles; rows are filled from the left."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    tiles = np.zeros((rows * columns, c, h, w), np.uint8)
    tiles[:n] = images
    grid = tiles.reshape(rows, columns, c, h, w).transpose(0, 3, 1, 4, 2)
    return Image.fromarray(grid.reshape(rows * h, columns * w, c))


def save_generator(path: Path, generator: nn.Module, cfg: Config, nimg: int) -> None:
    """Writes the weights as safetensors with the configuration in its header."""
    # One entry: of several, the library writes the order anew each time, and equal files differ.
    header = {"projgan": json.dumps({"config": asdict(cfg), "nimg": nimg})}
    tensors = {k: v.detach().cpu().contiguous() for k, v in generator.state_dict().items()}
    write_bytes_atomic(path, save(tensors, header))


def load_generator(
    path: Path, norms: str = "standing", device: torch.device | None = None
) -> tuple[nn.Module, Config, int]:
    """Loads a generator that `save_generator` wrote, with its config and image count.

    Args:
        path: a .safetensors file. It holds the averaged weights and, as training has them, copies
            of the raw generator's batch-norm statistics.
        norms: "standing": statistics of the averaged weights take their place
            (`projgan.standing_statistics`), computed here; "copied": they stay, as in the
            released code.
        device: where the generator is put. None = the CPU.

    Returns:
        The generator in eval mode, its configuration, and after how many images it was kept.

    Raises:
        DataError: the file cannot be read or fits no generator.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        said = json.loads(header["projgan"]) if "projgan" in header else _early(header)
        cfg, nimg = from_dict(said["config"]), int(said["nimg"])
        generator = build_generator(cfg)
        generator.load_state_dict(tensors)
    except Exception as error:  # whatever a file that another program made lets us stumble over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"Cannot load a generator from {path}: {reason}") from None
    # As in training, so that its images are those of then to the bit.
    fast.enable(generator, fast.chosen(cfg.train.fast))
    if cfg.train.fast:
        generator.to(memory_format=torch.channels_last)
    generator = generator.to(device).eval().requires_grad_(False)
    return standing_statistics(generator) if norms == "standing" else generator, cfg, nimg


def _early(header: dict[str, str]) -> dict[str, Any]:
    """The header of the first files, which had two entries."""
    return {"config": json.loads(header["config"]), "nimg": header["nimg"]}
