"""The one place that knows the file names of a run and where the checkout's own files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the checkout: run_bench.py, experiments/
EXPERIMENTS = ROOT / "experiments"
PUBLISHED = "reference"  # the folder of results/ that the project publishes
GRIDS = EXPERIMENTS / "grids"
SCALES = EXPERIMENTS / "scales"
PAPER = EXPERIMENTS / "paper"
RATES = EXPERIMENTS / "rates.yaml"
DATASETS = EXPERIMENTS / "datasets.yaml"
CLAIMS = PAPER / "claims.yaml"
PRESETS = EXPERIMENTS / "presets.yaml"
DISPATCH = EXPERIMENTS / "dispatch"
SOURCE_NOTE = "source.json"  # in a frozen copy of the source: the commit it was made from


@dataclass(frozen=True)
class RunPaths:
    """The files of one run, all inside its folder."""

    dir: Path

    @property
    def spec(self) -> Path:
        return self.dir / "spec.json"

    @property
    def record(self) -> Path:
        return self.dir / "record.json"

    @property
    def checkpoint(self) -> Path:
        return self.dir / "checkpoint.pt"

    @property
    def log(self) -> Path:
        return self.dir / "log.txt"

    @property
    def lease(self) -> Path:
        return self.dir / "claim.json"

    @property
    def job(self) -> Path:
        """Which job of a scheduler the run was given to."""
        return self.dir / "job.json"

    @property
    def samples_dir(self) -> Path:
        return self.dir / "samples"

    @property
    def diverged_dir(self) -> Path:
        """What is known of a divergence; `projgan.train` writes it."""
        return self.dir / "diverged"

    @property
    def snapshots_dir(self) -> Path:
        return self.dir / "snapshots"

    @property
    def real(self) -> Path:
        """64 real images, eight by eight, to hold the samples against."""
        return self.samples_dir / "real.png"

    def samples(self, nimg: int, norms: str) -> Path:
        """64 fixed latents, eight by eight, after `nimg` images, with standing or copied norms."""
        return self.samples_dir / f"{nimg:09d}-{norms}.png"

    def snapshot(self, nimg: int) -> Path:
        """The averaged generator after `nimg` images."""
        return self.snapshots_dir / f"{nimg:09d}.safetensors"

    def kept(self) -> list[int]:
        """Numbers of images after which a generator was kept."""
        names = [path.stem for path in self.snapshots_dir.glob("*.safetensors")]
        return sorted(int(name) for name in names if name.isdecimal())
