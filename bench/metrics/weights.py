"""Where the weights of metrics are: a folder, filled by a download or by hand, or a package."""

from __future__ import annotations

import hashlib
import re
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

from projgan.errors import DataError
from projgan.files import replacing
from projgan.weights import EXTRA, PACKAGES, installed


def find_weights(
    weights_dir: Path,
    name: str,
    purpose: str,
    origin: str,
    fetch: Callable[[Path], None] | None = None,
) -> Path:
    """A file of weights: placed in the folder, of an installed package, or downloaded once.

    Args:
        weights_dir: where it is looked for.
        name: of the file.
        purpose: the metrics that need it, for the message.
        origin: where it is published, for the message.
        fetch: brings it to the path it is given. None = it must be placed by hand.

    Raises:
        DataError: it is absent and cannot be downloaded; says where to put it by hand.
    """
    path = weights_dir / name
    if path.is_file():
        return path
    if (packaged := installed(name)) is not None:
        return packaged
    failed = "is"
    if fetch is not None:
        try:
            fetch(path)
            return path
        except Exception as error:  # a client raises its own, its transport's and the system's
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            failed = f"cannot be downloaded ({str(reason).splitlines()[0][:120]}) and is"
    by_pip = f"{EXTRA} brings it; or " if name in PACKAGES else ""
    raise DataError(
        f"{purpose} needs {name}, which {failed} not in {weights_dir}: "
        f"{by_pip}get {origin} elsewhere and place it there under this name"
    )


def fetch_url(url: str) -> Callable[[Path], None]:
    """Downloads a file, whole or not at all.

    What was sent is compared with the length that was announced and, where the file's name ends in
    the beginning of its SHA-256, as torchvision's do, with that.
    """
    named = re.search(r"-([0-9a-f]{8})\.pth$", url)

    def fetch(path: Path) -> None:
        with urllib.request.urlopen(url, timeout=30) as response, replacing(path) as file:
            digest = hashlib.sha256()
            while content := response.read(2**20):
                digest.update(content)
                file.write(content)
            announced, got = response.headers["Content-Length"], file.tell()
            if announced is not None and got != int(announced):
                raise OSError(f"the connection ended after {got} of {announced} bytes")
            if named and not (found := digest.hexdigest()).startswith(named[1]):
                raise OSError(f"its SHA-256 begins with {found[:8]}, not {named[1]}")

    return fetch


def fetch_hub(repository: str, name: str) -> Callable[[Path], None]:
    """Takes a file of a repository on the Hugging Face hub from the hub's cache or downloads it."""

    def fetch(path: Path) -> None:
        from huggingface_hub import hf_hub_download

        found = hf_hub_download(repository, name)
        with Path(found).open("rb") as source, replacing(path) as file:
            shutil.copyfileobj(source, file)

    return fetch
