"""`python tests/faults.py` tries every fault and writes what happened into docs/reliability.md.

A fault is tried by the tests named with it. `python tests/faults.py quick` leaves out those that
take minutes; their rows then say so. Further words choose faults by the names of their tests; the
other rows stay as they are.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


@dataclass(frozen=True)
class Fault:
    """What goes wrong, what happens then, and the tests that try it (a file, or file::name)."""

    fault: str
    happens: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "SIGKILL at 20 random points of a run: in steps, in the writing of checkpoints, measuring",
        "the next process goes on; everything is equal to the bit",
        ("cli/test_prove_resume.py::test_twenty_kills_change_nothing",),
    ),
    Fault(
        "the same, 200 times",
        "the same",
        ("cli/test_prove_resume.py::test_two_hundred_kills_change_nothing",),
    ),
    Fault(
        "SIGKILL after any byte of a file, before, between and after the renames",
        "the old file or the new one, whole",
        (
            "projgan/test_files.py::test_a_kill_at_any_byte_leaves_a_whole_file",
            "projgan/test_files.py::test_a_kill_at_every_single_byte_leaves_a_whole_file",
            "projgan/test_files.py::test_a_killed_swap_goes_on_from_the_state_before",
        ),
    ),
    Fault(
        "disk full, input/output error, quota, read-only, at each step of writing",
        "the old file stays; the run says so in one line and goes on later",
        (
            "projgan/test_files.py::test_an_error_at_any_step_leaves_the_old_content",
            "projgan/test_files.py::test_an_error_while_a_checkpoint_is_written_costs_neither_of_the_two",
            "run/test_runner.py::test_a_full_disk_is_one_line_and_keeps_what_was_there",
        ),
    ),
    Fault(
        "torn or altered checkpoint, record, generator or reference statistics",
        "found by its checksum or its form, told in the log; the state before is used",
        (
            "projgan/test_checkpoint.py",
            "projgan/test_files.py::test_a_checkpoint_that_rotted_does_not_push_the_good_one_out",
            "projgan/test_files.py::test_two_damaged_states_are_told_and_none_is_used",
            "run/test_runner.py::test_a_damaged_record_is_kept_aside_and_costs_no_training",
            "run/test_runner.py::test_a_damaged_generator_costs_its_new_metrics_alone",
        ),
    ),
    Fault(
        "the folder of a run may not be written, or vanishes",
        "one line; nothing is brought back",
        (
            "projgan/test_files.py::test_a_folder_that_may_not_be_written_keeps_its_files",
            "projgan/test_files.py::test_a_folder_that_vanishes_while_a_file_is_written_is_an_error",
            "store/test_lease.py::test_a_run_whose_folder_vanished_is_not_brought_back",
        ),
    ),
    Fault(
        "32 processes over one grid, killed at random",
        "each run is finished once, none is lost, no step is done twice",
        (
            "store/test_lease.py::test_thirty_two_processes_with_crashes_finish_each_run_once",
            "store/test_lease.py::test_the_same_again_and_again",
            "run/test_runner.py::test_thirty_two_processes_with_crashes_do_a_grid",
        ),
    ),
    Fault(
        "a process that was thought dead wakes up",
        "it cannot write: another has the run's next number",
        (
            "store/test_lease.py::test_an_owner_that_lost_the_run_cannot_write",
            "store/test_lease.py::test_a_run_taken_while_a_file_is_written_is_not_overwritten",
            "store/test_lease.py::test_a_heartbeat_never_brings_a_lost_claim_back",
            "run/test_runner.py::test_whoever_loses_the_run_at_any_write_changes_nothing",
        ),
    ),
    Fault(
        "a process that is stopped, or gives signs of life without getting on",
        "do=status shows the run as hung",
        (
            "store/test_lease.py::test_a_process_that_is_stopped_is_found",
            "store/test_lease.py::test_a_process_that_beats_and_does_not_get_on_is_found",
            "dispatch/test_slurm.py::test_a_run_that_hangs_is_shown",
        ),
    ),
    Fault(
        "out of memory in training",
        "the micro-batch is halved, gradients accumulate, record and table say so",
        (
            "run/test_retry.py::test_want_of_memory_halves_the_micro_batch_and_is_told",
            "run/test_retry.py::test_without_a_smaller_micro_batch_the_run_fails",
            "run/test_retry.py::test_the_table_has_a_footnote",
        ),
    ),
    Fault(
        "a loss or a weight that is no number",
        "the run stops; losses, batch and state are kept; the checkpoint is the last good state",
        (
            "projgan/test_train.py::test_divergence_stops_at_its_step_and_keeps_the_evidence",
            "projgan/test_train.py::test_weights_that_are_no_numbers_never_become_a_checkpoint",
        ),
    ),
    Fault(
        "a fault of the machine; a worker that dies",
        "back to the queue, three times in a row at most without getting on",
        (
            "run/test_retry.py::test_a_fault_of_the_node_gives_the_run_back_and_counts",
            "dispatch/test_local.py::test_a_worker_that_is_killed_is_told_and_the_others_finish",
            "dispatch/test_local.py::test_a_death_is_noted_and_goes_back_to_the_queue",
        ),
    ),
    Fault(
        "one of several processes that train together wants memory, has a bug, or is killed",
        "the same as were it alone: its kind of failure decides",
        (
            "dispatch/test_local.py::test_of_several_processes_the_one_that_failed_says_why",
            "dispatch/test_local.py::test_a_process_beside_the_first_fails",
        ),
    ),
    Fault(
        "a fault of the code",
        "two tries, then the run has failed and its log holds the traceback",
        (
            "run/test_retry.py::test_a_fault_of_the_code_stops_after_two_tries",
            "run/test_retry.py::test_a_fault_that_passes_costs_no_run",
        ),
    ),
    Fault(
        "the terminal or the starting process dies",
        "workers stop and give their runs back",
        ("dispatch/test_local.py::test_a_worker_stops_when_its_parent_dies",),
    ),
    Fault(
        "32 processes need the real side of a metric, and the one that computes it is killed",
        "another computes it, once; the others wait and read it",
        (
            "store/test_shared_cache.py::test_the_real_side_is_computed_once_by_32_processes_of_which_one_dies",
        ),
    ),
    Fault(
        "SLURM: the checkout is edited while jobs are queued, and one run of an array fails",
        "the jobs run the source that was submitted; the other runs finish",
        ("dispatch/test_slurm.py::test_a_grid",),
    ),
    Fault(
        "SLURM: the time limit, again and again",
        "a checkpoint within the warning time, requeued, goes on; no failure",
        (
            "dispatch/test_slurm.py::test_a_real_time_limit",
            "config/test_slurm_settings.py::test_a_job_is_requeued_while_it_gets_on",
            "config/test_slurm_settings.py::test_a_job_without_progress_is_given_up_and_has_not_failed",
        ),
    ),
    Fault(
        "SLURM: a warning, scontrol requeue, preemption with and without a warning, scancel",
        "a checkpoint of the last step; requeued jobs go on from it, cancelled runs when asked to",
        (
            "dispatch/test_slurm.py::test_warned_and_cancelled",
            "dispatch/test_slurm.py::test_requeued_preempted_and_ended_behind_our_back",
            "dispatch/test_slurm.py::test_a_preemption_that_gives_no_warning",
            "dispatch/test_slurm.py::test_several_processes_are_warned_and_requeued",
        ),
    ),
    Fault(
        "SLURM: a node is set down, loses its power, or its daemon dies and the run lives",
        "the run goes on elsewhere; a second copy leaves while the first lives",
        ("dispatch/test_slurm.py::test_a_node_is_lost",),
    ),
    Fault(
        "SLURM: workers crash on a node that is up",
        "the job is requeued, and avoids that node",
        ("dispatch/test_slurm.py::test_a_node_that_fails_a_run_is_left_for_another",),
    ),
    Fault(
        "SLURM: the controller is away, then back",
        "jobs go on; status tells what the files do; nothing is submitted twice",
        ("dispatch/test_slurm.py::test_the_controller_is_restarted",),
    ),
    Fault(
        "SLURM: no accounting, and accounting",
        "status by the queue and the records; with accounting, how a job ended",
        (
            "dispatch/test_slurm.py::test_requeued_preempted_and_ended_behind_our_back",
            "dispatch/test_slurm.py::test_with_accounting",
        ),
    ),
    Fault(
        "SLURM: more jobs than an array may hold; what sbatch refuses; do=cancel",
        "several arrays; one line and no job; the grid's jobs end and no other",
        (
            "dispatch/test_slurm.py::test_an_array_is_as_long_as_the_cluster_allows",
            "dispatch/test_slurm.py::test_what_sbatch_refuses_is_one_line_and_leaves_no_job",
            "dispatch/test_slurm.py::test_several_runs_in_a_job",
        ),
    ),
    Fault(
        "a pickle in a checkpoint, weights, generator, cache or packed data; other TorchScript",
        "refused; nothing of it is executed",
        (
            "test_security.py::test_no_loader_runs_what_a_file_holds",
            "test_security.py::test_no_line_of_the_project_could_load_a_pickle_or_unsafe_yaml",
            "metrics/test_extractors.py::test_another_file_than_the_published_one_is_not_run",
            "config/test_slurm_settings.py::test_what_is_unpickled_lies_in_a_folder_of_our_own",
        ),
    ),
    Fault(
        "names from YAML or records that lead out of a folder; markup in names",
        "refused, or written as text",
        (
            "test_security.py::test_a_grid_name_cannot_leave_results",
            "test_security.py::test_a_name_of_data_cannot_leave_the_data_folder",
            "test_security.py::test_a_record_cannot_name_a_file_outside_its_run",
            "test_security.py::test_names_are_text_in_every_output",
            "test_security.py::test_yaml_makes_no_objects",
            "test_security.py::test_members_of_an_archive_stay_in_it",
            "config/test_slurm_settings.py::test_a_grid_from_elsewhere_puts_no_words_into_a_shell",
            "test_security.py::test_aliases_that_unfold_without_end_are_refused",
        ),
    ),
    Fault(
        "arbitrary grid files, command lines, records, run descriptions, checkpoints, images",
        "a right result or one clear line; no file is lost",
        ("test_fuzz.py",),
    ),
)


def try_all(faults: Sequence[Fault], slow: bool) -> dict[str, Counter[str]]:
    """Outcomes by test: file or file::name -> counts of passed, failed, skipped."""
    wanted = [f"tests/{test}" for fault in faults for test in fault.tests]
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.xml"
        marks = ["-m", "slow or not slow"] if slow else []
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={told}", *marks, *wanted]
        subprocess.run(command, cwd=ROOT, check=False)
        cases = ElementTree.parse(told).iter("testcase")
        found: dict[str, Counter[str]] = {}
        for case in cases:
            file = f"{case.attrib['classname'].split('.')[-1]}.py"
            name = case.attrib["name"].split("[")[0]
            kinds = {child.tag for child in case}
            outcome = "failed" if kinds & {"failure", "error"} else "passed"
            outcome = "skipped" if "skipped" in kinds else outcome
            for key in (file, f"{file}::{name}"):
                found.setdefault(key, Counter())[outcome] += 1
    return found


def row(fault: Fault, found: dict[str, Counter[str]]) -> str:
    """What happened, as a line of the table."""
    count = sum((found.get(test, Counter()) for test in fault.tests), Counter())
    said = f"{count['passed']} of {count['passed']} held" if count["passed"] else "not tried here"
    if count["failed"]:
        said = f"{count['failed']} of {count['passed'] + count['failed']} failed"
    if count["skipped"]:
        said += f", {count['skipped']} skipped"
    return f"| {fault.fault} | {fault.happens} | {said} |"


def main(*words: str) -> int:
    """Writes the table between its marks; the exit status tells whether all held."""
    chosen = [word for word in words if word != "quick"]
    faults = [f for f in FAULTS if not chosen or any(w in t for w in chosen for t in f.tests)]
    if not faults:
        raise SystemExit(f"no fault is tried by a test named {' or '.join(chosen)}")
    found = try_all(faults, slow="quick" not in words)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in old.splitlines()}
    rows |= {fault.fault: row(fault, found) for fault in faults}
    lines = ["| what goes wrong | what happens | tried |", "|---|---|---|"]
    lines += [rows.get(fault.fault, row(fault, {})) for fault in FAULTS]
    page = "\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"])
    PAGE.write_text(page, encoding="utf-8")
    return int(any(counts["failed"] for counts in found.values()))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
