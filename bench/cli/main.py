"""The command line: `python run_bench.py [grid=NAME] [do=VERB] [key=value …]`."""

from __future__ import annotations

import gc
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.cli import hints
from bench.cli.options import USAGE, Options, parse
from bench.config import grid as grids
from bench.config import terminal
from bench.config.paths import RunPaths
from bench.config.schema import SlurmFile
from bench.config.spec import Grid, RunSpec, value_name
from bench.dispatch import BACKENDS, local, slurm, slurm_job, slurm_queue
from bench.run.progress import counter_for, progress_for
from bench.store.record import RunState, mark_stale
from projgan.errors import UserError, unknown
from projgan.files import write_json_atomic

OK, SOME_FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
States = Sequence[tuple[RunSpec, RunState]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    is_program = argv is None
    words = list(sys.argv[1:] if argv is None else argv)
    if is_program:
        terminal.prepare()
    if {"-h", "--help", "help"} & set(words):
        print(USAGE)
        return OK
    try:
        options = parse(words)
        if options.do in READING:
            gc.disable()  # thousands of records are read and kept; looking for cycles takes longer
        return VERBS[options.do](options)
    except UserError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left
        sys.stderr.close()
        return OK
    except OSError as error:  # a disk that is full, a file that may not be read
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{place}{error.strerror or error}", SOME_FAILED)
    finally:
        if is_program and not gc.isenabled():
            gc.freeze()  # or it looks for them as the process ends
        gc.enable()


def run(options: Options) -> int:
    """Trains and measures what is not done yet, then writes the report."""
    from bench.analysis.facts import Facts
    from bench.report.build import write_report

    grid = _load(options)
    if options.force == "measure" and not options.dry_run:
        for spec, state in _states(grid, options):
            if not state.taken:
                mark_stale(spec, RunPaths(options.runs_dir / spec.run_id))
    states = _states(grid, options)
    todo = [spec for spec, state in states if _is_due(state, options)]
    _print_taken(states, todo)
    if options.dry_run:
        settings = _slurm_settings(options, grid)
        for text in slurm.scripts(grid.name, todo, options.runs_dir, settings):
            print(text)
        return OK
    if todo:
        _prepare(grid, todo, options)
    try:
        if options.on_cluster:
            return _submit(grid, todo, options)
        if todo:
            _train(todo, options)
    except UserError as error:  # nothing can be written any more, or the cluster refuses
        return _refuse(str(error), SOME_FAILED)
    facts = Facts.read(_all_rows(grid, options), options.runs_dir)
    files = write_report(facts, options.results_dir, _echo)
    _print_page(files)
    return _print_unfinished(_states(grid, options), todo)


def _is_due(state: RunState, options: Options) -> bool:
    """Whether a run in this state has something to do, and is in nobody else's hands."""
    wanted = options.force == "all" or not state.settled or state.state == options.force
    return wanted and not (state.taken if options.on_cluster else state.state == "queued")


def _prepare(grid: Grid, todo: Sequence[RunSpec], options: Options) -> None:
    """Refuses what cannot work, names what is done, and writes each run's description."""
    from bench.run.preflight import check

    with counter_for(_echo) as show:
        check(todo, options.runs_dir, options.results_dir, options.data_dir, show, _echo)
    skipped = len(grid.runs) - len(todo)
    print(f"{grid.name} ({grid.scale}): {_count(todo)} to do, {skipped} done before")
    for line in hints.same_in_effect(grid):
        print(line)
    for spec in todo:
        write_json_atomic(RunPaths(options.runs_dir / spec.run_id).spec, spec.to_json())


def _train(todo: Sequence[RunSpec], options: Options) -> None:
    with _signals_interrupt(), progress_for(todo, _echo) as progress:
        BACKENDS[options.dispatch](
            todo, options.runs_dir, options.data_dir, progress, options.force == "all",
            options.gpus_per_run,
        )  # fmt: skip


def _submit(grid: Grid, todo: Sequence[RunSpec], options: Options) -> int:
    """Hands the runs to the cluster and leaves."""
    if not todo:
        print(f"{grid.name} ({grid.scale}): nothing to submit")
        return OK
    slurm.submit(
        grid.name, todo, options.runs_dir, options.data_dir, _slurm_settings(options, grid), _echo,
        anew=options.force == "all",
    )  # fmt: skip
    print("do=status shows how far they are, do=cancel ends them; this terminal may close")
    return OK


def plan(options: Options) -> int:
    """Lists the runs, the state of each, and what is left."""
    from bench.run.preflight import check_classes
    from bench.store.eta import estimate

    grid = _load(options)
    states = _states(grid, options)
    check_classes([spec for spec, state in states if not state.settled], options.data_dir)
    lines = [["run", "row", *grid.axes, "seed", "state", "kimg", "note"]]
    for spec, now in states:
        axes = [value_name(key, value) for key, value in spec.axes.items()]
        seed = str(spec.config.train.seed)
        lines.append([spec.run_id, spec.row, *axes, seed, now.state, _kimg(spec, now), now.note])
    _print_table(lines)
    counts = Counter(now.state for _, now in states)
    total = sum(spec.total_images for spec in grid.runs)
    left = sum(spec.total_images - now.nimg for spec, now in states
               if now.state not in ("finished", "incomplete"))  # fmt: skip
    print(
        f"{_count(grid.runs)} ({', '.join(f'{n} {state}' for state, n in counts.items())}), "
        f"{left / 1000:g} of {total / 1000:g} kimg left, scale {grid.scale}"
    )
    _print_hints(grid, states, options)
    gpus = {row.label: _gpus(options, grid, row.label) for row in grid.rows}
    cost = estimate(states, options.runs_dir, lambda spec: gpus[spec.row])
    if text := cost.text("GPU-hours" if any(gpus.values()) else "CPU-hours"):
        print(text)
    if options.on_cluster:
        free = [spec for spec, now in states if not (now.settled or now.taken)]
        arrays = [jobs for jobs, _ in slurm.arrays(free, _slurm_settings(options, grid))]
        jobs = _count([job for array in arrays for job in array], "job")
        print(f"{_count(free)} to submit, as {jobs} in {_count(arrays, 'array')}")
    return OK


def status(options: Options) -> int:
    """How far every run is, with its latest value of the ranking metric."""
    grid = _load(options)
    states = _states(grid, options)
    lines = [["run", "row", "state", "kimg", "latest", "note"]]
    for spec, now in states:
        name = spec.name if len(grid.seeds) > 1 else spec.label
        lines.append([spec.run_id, name, now.state, _kimg(spec, now), _latest(grid, now), now.note])
    _print_table(lines)
    _print_hints(grid, states, options)
    finished = sum(now.state == "finished" for _, now in states)
    print(f"{finished} of {_count(grid.runs)} finished")
    return OK


def cancel(options: Options) -> int:
    """Cancels the jobs of the grid's runs, and of no other; what runs keeps its last step."""
    from datetime import UTC, datetime

    grid = _load(options)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    ended, kept = slurm_queue.cancel(grid.runs, options.runs_dir, now)
    for line in kept:
        print(line)
    print(f"cancelled: {', '.join(ended)}" if ended else "no job of this grid was cancelled")
    return OK


def report(options: Options) -> int:
    """Writes tables and curves from the records."""
    from bench.analysis.facts import Facts
    from bench.report.build import write_report
    from bench.run.preflight import check_folder

    grid = _load(options)
    check_folder("results_dir", options.results_dir)
    exports = options.export or []
    facts = Facts.read(grid, options.runs_dir)
    files = write_report(facts, options.results_dir, _echo, exports=exports)
    if not files:
        _print_other_settings(grid, options)
    _print_page(files)
    return OK if files else SOME_FAILED


def compare(options: Options) -> int:
    """Runs, or the rows of two grids, against each other: curves, images to a target, a test."""
    from bench.analysis import comparison
    from bench.analysis.facts import Facts
    from bench.report.build import write_report
    from bench.run.preflight import check_folder

    if (options.runs is None) == (options.grids is None):
        raise UserError("do=compare: give runs=A,B (ids) or grids=A,B (names)")
    if options.runs is not None:
        command = f"do=compare runs={','.join(options.runs)}"
        grid = comparison.of_runs(options.runs, options.runs_dir, options.target)
    else:
        names = options.grids or []
        command = f"do=compare grids={','.join(names)}"
        loaded = [_load(replace(options, target=None), name) for name in names]
        grid = comparison.of_grids(loaded, options.runs_dir, options.target)
    check_folder("results_dir", options.results_dir)
    shown = ("table", "seeds", "targets")
    facts = Facts.read(grid, options.runs_dir)
    files = write_report(facts, options.results_dir, _echo, show=shown, command=command)
    _print_page(files)
    return OK if files else SOME_FAILED


def watch(options: Options) -> int:
    """A live table of every run until all are done; printed once where there is no terminal."""
    from bench.cli.watch import watch

    return OK if watch(_load(options), options.runs_dir, _echo) else SOME_FAILED


def verify(options: Options) -> int:
    """Every published number again from the records, and every file by its hash."""
    from bench.report import manifest
    from bench.report.build import target_folder
    from bench.report.verify import verify

    folder = target_folder(_load(options), options.results_dir)
    if (own := folder / "grid.yaml").is_file():  # made of rows that the shipped grid has no more
        options.grid = str(own)
    published = manifest.read(folder)
    options.seeds = options.seeds or published.get("seeds")
    options.overrides = options.overrides or manifest.as_overrides(published)
    options.target = options.target or published.get("target")
    found = verify(_load(options, norms=published.get("norms", "copied")), folder, options.runs_dir)
    for line in [*found.faults, *found.notes]:
        print(line)
    count = f"{found.cells} numbers and words, {found.files} files, {found.runs} finished runs"
    if found.faults:
        print(f"{len(found.faults)} do not match ({count} looked at) in {folder}")
        return SOME_FAILED
    print(f"{count}: all match in {folder}")
    return OK


def claims(options: Options) -> int:
    """The paper's findings against the records: evidence, effect, verdict."""
    from bench.analysis import paper_claims
    from bench.analysis.facts import Facts
    from bench.analysis.stats import ALPHA
    from bench.analysis.verdicts import CLAIM_WORDS

    known = grids.load_claims(options.scale)
    names = list(dict.fromkeys(claim.grid for claim in known))
    if options.grid is not None:
        if options.grid not in names:
            raise UserError(unknown("grid with claims", options.grid, names))
        names = [options.grid]
    options.seeds = options.seeds or paper_claims.seeds_found(options.runs_dir) or None
    loaded = {name: _load(options, name) for name in names}
    known = [claim for claim in known if claim.grid in loaded]
    for claim in known:
        paper_claims.check(claim, loaded[claim.grid])
    cells = {name: Facts.read(grid, options.runs_dir).cells for name, grid in loaded.items()}
    found = [paper_claims.examine(c, loaded[c.grid], cells[c.grid]) for c in known]
    for claim, finding in zip(known, found, strict=True):
        print(paper_claims.to_text(claim, finding))
    verdicts = Counter(finding.verdict for finding in found)
    counts = ", ".join(f"{verdicts[word]} {word}" for word in CLAIM_WORDS)
    print(f"scale {options.scale}, each claim tested alone at {ALPHA:.0%}: {counts}")
    return OK


def list_grids(options: Options) -> int:
    """Names every grid, with a line about it."""
    _print_table([[name, about] for name, about in grids.list_grids()])
    print("\npython run_bench.py grid=NAME runs one; --help shows more")
    return OK


def score(options: Options) -> int:
    """Measures two sets of images against each other."""
    from bench.cli.score import score

    score(options, _echo)
    return OK


def prepare(options: Options) -> int:
    """Packs a folder, archive, LMDB or export of images as a data set."""
    from bench.cli.prepare import prepare

    with counter_for(_echo) as show:
        prepare(options, show, _echo)
    return OK


def fetch_weights(options: Options) -> int:
    """Fetches the files of weights that a grid needs, and says which are to be placed by hand."""
    from bench.metrics import weights
    from bench.run.preflight import check_folder

    grid = _load(options)
    check_folder("data_dir", options.data_dir)
    return OK if weights.fetch_weights(grid, options.data_dir, _echo) else SOME_FAILED


def sample(options: Options) -> int:
    """Writes images of the generator that a run kept."""
    from bench.cli.sample import sample

    sample(options, _echo)
    return OK


def prove_resume(options: Options) -> int:
    """Kills a short run again and again, and compares it with one that was never touched."""
    from bench.cli.prove_resume import prove
    from bench.run.preflight import check_folder

    options.grid = options.grid or "smoke"
    spec = _load(options).runs[0]
    check_folder("runs_dir", options.runs_dir)
    return OK if prove(spec, options, _echo) else SOME_FAILED


VERBS: dict[str, Callable[[Options], int]] = {
    "run": run,
    "plan": plan,
    "status": status,
    "cancel": cancel,
    "report": report,
    "compare": compare,
    "watch": watch,
    "verify": verify,
    "claims": claims,
    "list": list_grids,
    "score": score,
    "prepare": prepare,
    "fetch-weights": fetch_weights,
    "sample": sample,
    "prove-resume": prove_resume,
}
# Verbs that read, write and end.
READING = ("plan", "status", "report", "compare", "verify", "claims")


def _load(options: Options, name: str | None = None, norms: str | None = None) -> Grid:
    """A grid as the command line changes it, its report section checked as well."""
    from bench.analysis.validation import validate

    name = name or options.grid
    if name is None:
        raise UserError("grid=NAME is missing; python run_bench.py do=list shows the grids")
    only = options.only
    grid = grids.load(name, options.scale, options.overrides, options.seeds, only, norms)
    grid = validate(grid, narrowed=only is not None)
    if options.target is not None:
        from bench.analysis.target import with_target

        grid = with_target(grid, options.target)
    return grid


def _all_rows(grid: Grid, options: Options) -> Grid:
    """The grid with all its rows, for a report in which the others keep their place."""
    if options.only is None:
        return grid
    try:
        return _load(replace(options, only=None))
    except UserError:  # an override that suits the chosen rows alone
        return grid


def _states(grid: Grid, options: Options) -> States:
    """Every run of a grid with its state."""
    found = slurm_queue.run_states(grid.runs, options.runs_dir)
    return list(zip(grid.runs, found, strict=True))


def _slurm_settings(options: Options, grid: Grid) -> Callable[[RunSpec], SlurmFile]:
    by_row = {row.label: options.slurm_settings(row.label, grid) for row in grid.rows}
    return lambda spec: by_row[spec.row]


def _gpus(options: Options, grid: Grid, row: str) -> int:
    """GPUs of a run of this row: what a job asks for, or one of this machine."""
    if options.on_cluster:
        asked = options.slurm_settings(row, grid)
        return slurm_job.share(asked.gpus, asked.runs_per_job) if asked.gpus else 0
    return int(local.slots()[0] is not None)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Within, being asked to end is Ctrl-C: workers are stopped and leases given back."""
    before = {}
    for name in ("SIGTERM", "SIGHUP"):  # Windows knows no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish
            before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_hints(grid: Grid, states: States, options: Options) -> None:
    """Rows that do not differ in effect, and other runs where none of these is there."""
    for line in hints.same_in_effect(grid):
        print(line)
    if all(now.state == "missing" for _, now in states):
        _print_other_settings(grid, options)


def _print_other_settings(grid: Grid, options: Options) -> None:
    if others := hints.other_settings(grid, options.runs_dir):
        print(f"{grid.name}: {others}")


def _print_taken(states: States, todo: Sequence[RunSpec]) -> None:
    """Says which runs are left to the process or job that has them."""
    ids = {spec.run_id for spec in todo}
    taken = [(spec, now) for spec, now in states if now.taken and spec.run_id not in ids]
    if taken:
        spec, now = taken[0]
        print(f"{_count(taken)} left alone, queued or running ({spec.name}: {now.note}); "
              "do=cancel ends jobs")  # fmt: skip


def _print_unfinished(states: States, todo: Sequence[RunSpec]) -> int:
    """Says what failed and what did not end; the exit status."""
    if failed := [spec for spec, now in states if now.state == "failed"]:
        print(f"{_count(failed)} failed; force=failed tries again", file=sys.stderr)
    tried = {spec.run_id for spec in todo}
    left = [(spec, now) for spec, now in states
            if spec.run_id in tried and now.state not in ("finished", "failed")]  # fmt: skip
    if left:
        spec, now = left[0]
        why = f"{now.state}, {now.note}" if now.note else now.state
        print(f"{_count(left)} not finished ({spec.name}: {why}); "
              "the same command goes on with what is left", file=sys.stderr)  # fmt: skip
    return SOME_FAILED if failed or left else OK


def _print_page(files: Sequence[Path]) -> None:
    """The page to look at, the last line of a report."""
    for path in files:
        if path.name == "index.html":
            print(f"to look at: {path}")


def _print_table(lines: Sequence[Sequence[str]]) -> None:
    print("\n".join(terminal.aligned(lines)))


def _kimg(spec: RunSpec, now: RunState) -> str:
    return f"{now.nimg / 1000:g}/{spec.total_images / 1000:g}"


def _latest(grid: Grid, now: RunState) -> str:
    metrics = now.metrics or {}
    ranking = grid.report.rank_by
    key = ranking if ranking in metrics else next(iter(metrics), None)
    return f"{key} {metrics[key]:.4g}" if key else ""


def _count(found: Sequence[object], noun: str = "run") -> str:
    return f"{len(found)} {noun}" + ("s" if len(found) != 1 else "")


def _echo(text: str) -> None:
    print(text, flush=True)


def _refuse(message: str, status: int = REFUSED) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status
