"""Another node for a job whose node failed it: SLURM is told to keep that job from that node.

The job stays what it is, with its id and its place in the array. Its list of nodes to avoid can be
changed only while it waits, so that is done between its requeue and its end.
"""

from __future__ import annotations

import re
import subprocess
import time

from bench.dispatch.slurm_queue import ask
from projgan.errors import UserError

TRIES, PAUSE_SECONDS = 5, 0.2  # SLURM's request to end may hit the command too


def to_avoid(job: str, node: str) -> str | None:
    """The nodes that a job avoids, and one more.

    Returns:
        As SLURM writes lists of nodes. None = no other node of the job's partition would be left,
        with which the job would wait for ever, or SLURM does not answer.
    """
    try:
        shown = " ".join(ask("scontrol", "show", "job", "--oneliner", job))
        before = re.search(r"\bExcNodeList=(\S+)", shown)
        partition = re.search(r"\bPartition=(\S+)", shown)
        if before is None or partition is None:
            return None
        nodes = [node] if before[1] == "(null)" else [before[1], node]
        avoided = {*ask("scontrol", "show", "hostnames", ",".join(nodes))}
        all_ = ask("sinfo", "--noheader", "--Node", f"--partition={partition[1]}", "--format=%N")
    except UserError:
        return None
    return ",".join(nodes) if {name.strip() for name in all_} - avoided else None


def avoid(job: str, nodes: str) -> bool:
    """Keeps a job that waits from these nodes; whether SLURM agreed."""
    command = ["scontrol", "update", f"JobId={job}", f"ExcNodeList={nodes}"]
    for _ in range(TRIES):
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return True
        time.sleep(PAUSE_SECONDS)
    return False
