"""A real SLURM cluster of four nodes on this machine, for tests; see tests/slurm/."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "slurm"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PATIENCE = 900.0  # seconds for anything; machines may be busy
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def why_not(*further: str) -> str:
    """Why there can be no cluster here; empty = there can be."""
    missing = [name for name in (*PROGRAMS, *further) if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed (tests/slurm/install.sh does it)"
    try:
        address = socket.gethostbyname(socket.gethostname().split(".")[0])
    except OSError:
        address = "nothing"
    if address == "nothing" or (address.startswith("127.") and address != "127.0.0.1"):
        return f"this host's name means {address}; SLURM needs 127.0.0.1 in /etc/hosts"
    return ""


needs_cluster = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up; its commands find it through SLURM_CONF."""

    dir: Path

    def tell(self, *command: str) -> str:
        """What a command prints."""
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=self.environment,
            cwd=self.dir,  # where SLURM writes a job's log
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        own = {"SLURM_CONF": str(self.dir / "etc" / "slurm.conf"), "PATH": _PATH}
        return os.environ | own | {"SLAB_DIR": str(self.dir)}

    def node(self, act: str, name: str) -> None:
        self.tell(str(SCRIPTS / "node.sh"), act, name)

    def queue(self, format: str = "%i %T") -> list[str]:
        return self.tell("squeue", "--noheader", "--array", f"--format={format}").splitlines()


@contextmanager
def cluster(**settings: str) -> Iterator[Cluster]:
    """Starts a cluster, with its own folder and ports, and stops it."""
    # Not below pytest's own folder: munge wants all those above its socket open to everybody.
    made = Cluster(Path(tempfile.mkdtemp(prefix="slurm-")))
    made.dir.chmod(0o755)
    environment = made.environment | {f"SLAB_{key}": value for key, value in settings.items()}
    environment.setdefault("SLAB_PORT", str(_free_ports()))
    try:
        done = subprocess.run(
            [SCRIPTS / "up.sh"], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        subprocess.run([SCRIPTS / "down.sh"], env=environment, capture_output=True, timeout=120)
        shutil.rmtree(made.dir, ignore_errors=True)


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Waits for a condition to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.3)


def _free_ports() -> int:
    """The first of a block of 20 ports of which none is taken."""
    start = os.getpid() % 700  # so that two that begin together do not choose the same
    for first in (10000 + (start + i) % 700 * 20 for i in range(700)):
        try:
            for port in range(first, first + 20):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no block of free ports")
