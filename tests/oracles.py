"""How far this project's numbers are from torch-fidelity's and clean-fid's: `do=score` beside them.

All start from the same folders of PNG files, and the tools see the same networks; what differs is
who reads the files, batches, resizes and computes. `python tests/oracles.py` prints the table
that stands in docs/metrics.md. No published weights are needed: Inception has random ones, written
in the form of the published file.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from bench.cli.score import measure
from bench.config.metrics import FRECHET, INCEPTION_SCORE, KERNEL, METRICS, NEIGHBOURS
from bench.metrics import weights
from bench.metrics.extractors import EXTRACTORS, Source
from bench.metrics.image_folder import open_images
from bench.metrics.order import ContentOrder
from projgan import scenes
from projgan.files import sha256_of

CPU = torch.device("cpu")

# Relative. Of precision and recall the mean of shares is float32 there; a sample more is 1e-2.
TOLERANCE = {FRECHET: 1e-4, KERNEL: 1e-4, NEIGHBOURS: 1e-6, INCEPTION_SCORE: 1e-5}


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    metric: str
    oracle: str
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        """As a share of theirs."""
        return abs(self.ours - self.theirs) / max(abs(self.theirs), 1e-12)

    @property
    def tolerance(self) -> float:
        return TOLERANCE[METRICS[self.metric].compute]


def write_folders(place: Path, count: int, size: int) -> tuple[Path, Path]:
    """Rendered scenes, and others with noise, as PNG.

    They are named in the order of their content, as `do=score` takes them whatever their names
    are: tools that cut files into parts by name then cut the same ones.
    """
    images = scenes.render("clevr", 0, np.arange(2 * count), 32)
    noise = np.random.default_rng(0).normal(0, 25, images[count:].shape)
    sides = {
        "real": images[:count],
        "fake": np.clip(images[count:] + noise, 0, 255).astype(np.uint8),
    }
    for name, side in sides.items():
        (place / name).mkdir()
        pictures = [
            Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BICUBIC)
            for image in side
        ]
        keys = ContentOrder()([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])
        for i, which in enumerate(np.argsort(keys)):
            pictures[which].save(place / name / f"{i:05}.png")
    return place / "real", place / "fake"


def through_the_lab_extractor(place: Path, count: int) -> Iterator[Line]:
    """torch-fidelity with this project's network, registered as one of its own."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    network = EXTRACTORS["lab"].load(Source(32, CPU, place))

    class Lab(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **settings: object) -> None:
            super().__init__(name, features_list)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (network.forward(x)[""],)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("pooled",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "pooled"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

    torch_fidelity.register_feature_extractor("lab", Lab)
    real, fake = write_folders(place, count, 32)
    keys = ("fd_lab", "kid_lab", "precision_lab", "recall_lab")
    ours = measure(open_images(real), open_images(fake), keys, place, _silent).scores
    theirs = torch_fidelity.calculate_metrics(
        input1=str(fake),
        input2=str(real),
        feature_extractor="lab",
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=1,
        kid_subset_size=count,  # of everything, so that no choice of subsets differs
        **_QUIET,
    )
    yield Line("fd_lab", _FIDELITY, ours["fd_lab"], theirs["frechet_inception_distance"])
    yield Line(
        "kid_lab", _FIDELITY, ours["kid_lab"], 1000 * theirs["kernel_inception_distance_mean"]
    )
    yield Line("precision_lab", _FIDELITY, ours["precision_lab"], theirs["precision"])
    yield Line("recall_lab", _FIDELITY, ours["recall_lab"], theirs["recall"])


def through_inception(place: Path, count: int) -> Iterator[Line]:
    """torch-fidelity's and clean-fid's Inception, and ours, with the same random weights."""
    import torch_fidelity
    from cleanfid.fid import get_folder_features, kernel_distance
    from cleanfid.inception_torchscript import InceptionV3W

    folder = place / "weights"
    folder.mkdir()
    theirs_file = write_random_inception(folder)
    real, fake = write_folders(place, count, 299)  # which no resize changes
    ours = measure(open_images(real), open_images(fake), ("fid", "kid", "is"), place, _silent)
    theirs = torch_fidelity.calculate_metrics(
        input1=str(fake),
        input2=str(real),
        feature_extractor_weights_path=str(theirs_file),
        fid=True,
        kid=True,
        isc=True,
        samples_shuffle=False,
        kid_subsets=1,
        kid_subset_size=count,
        **_QUIET,
    )
    yield Line(
        "kid", _FIDELITY, ours.scores["kid"], 1000 * theirs["kernel_inception_distance_mean"]
    )
    yield Line("fid", _FIDELITY, ours.scores["fid"], theirs["frechet_inception_distance"])
    yield Line("is", _FIDELITY, ours.scores["is"], theirs["inception_score_mean"])

    network = InceptionV3W(str(folder), download=False)
    features = [
        get_folder_features(
            str(f), network, num_workers=0, device=CPU, mode="clean", batch_size=32, verbose=False
        )
        for f in (real, fake)
    ]
    cleans = 1000 * kernel_distance(*features, num_subsets=1)
    yield Line("kid", "clean-fid, `clean`", ours.scores["kid"], cleans)


def write_random_inception(folder: Path) -> Path:
    """One network in two forms: the TorchScript file of `clean` mode, and torch-fidelity's.

    Returns:
        The path of the latter.
    """
    from torch_fidelity import feature_extractor_inceptionv3 as module

    built = nn.Module.load_state_dict
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nothing: dict[str, Tensor] = {}
        module.FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None
        torch.save(nothing, folder / "none.pth")
        try:
            network = module.FeatureExtractorInceptionV3(
                "random", ["2048"], feature_extractor_weights_path=str(folder / "none.pth")
            )
        finally:
            module.FeatureExtractorInceptionV3.load_state_dict = built
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
        nn.init.normal_(network.fc.weight, std=0.3)
    path = folder / "torch-fidelity.pth"
    torch.save(network.state_dict(), path)

    names = [name for name, _ in network.named_children() if name != "fc"]
    parts = [getattr(network, name) for name in names]

    class Published(nn.Module):
        """Has the form of the file that clean-fid opens."""

        def __init__(self) -> None:
            super().__init__()
            layers = nn.Sequential(*parts, nn.Flatten()).eval()
            self.layers = torch.jit.trace(layers, torch.zeros(2, 3, 299, 299))
            self.output = network.fc

        def forward(self, x: Tensor) -> Tensor:
            return self.output(self.layers(x))

    file = folder / weights.FILES["inception"].name
    torch.jit.script(Published()).save(str(file))
    trusted = replace(weights.FILES["inception"], sha256=sha256_of(file))  # here instead
    weights.FILES["inception"] = trusted
    return path


def markdown(lines: list[Line]) -> str:
    """The table of docs/metrics.md."""
    rows = [
        "| metric | oracle | `do=score` | oracle's | relative difference | tolerance |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {METRICS[x.metric].header} | {x.oracle} | {x.ours:.6g} | {x.theirs:.6g} "
        f"| {x.difference:.1e} | {x.tolerance:.0e} |"
        for x in lines
    ]
    return "\n".join(rows) + "\n"


_FIDELITY = "torch-fidelity"
_QUIET: dict[str, Any] = {"cuda": False, "cache": False, "verbose": False, "batch_size": 32}
Pixels = NDArray[np.uint8]


def _silent(what: str, done: int, total: int) -> None:
    pass


def main() -> None:
    """Prints the table."""
    warnings.simplefilter("ignore")
    parts: list[tuple[Callable[[Path, int], Iterator[Line]], int]] = [
        (through_the_lab_extractor, 500),
        (through_inception, 20),
    ]
    lines: list[Line] = []
    for part, count in parts:
        with tempfile.TemporaryDirectory() as place:
            lines += part(Path(place), count)
    print(markdown(lines), end="")


if __name__ == "__main__":
    main()
