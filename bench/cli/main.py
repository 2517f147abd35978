"""The command line: `python run_bench.py [grid=NAME] [do=VERB] [key=value …]`."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.cli import hints
from bench.cli.options import USAGE, Options, parse
from bench.config import grid as grids
from bench.config import terminal
from bench.config.paths import RunPaths
from bench.config.schema import SlurmFile
from bench.config.spec import EvalSpec, Grid, RunSpec, value_name
from bench.config.yaml_types import parse_overrides
from bench.dispatch import BACKENDS, local, slurm, slurm_job, slurm_queue
from bench.run.progress import counter_for, progress_for
from bench.store.record import RunState, mark_stale
from projgan.errors import UserError, unknown
from projgan.files import write_json_atomic

OK, SOME_FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    whole_process = argv is None
    argv = list(sys.argv[1:] if argv is None else argv)
    if whole_process:
        terminal.prepare()
    if {"-h", "--help", "help"} & set(argv):
        print(USAGE)
        return OK
    options = Options()
    try:
        options = parse(argv)
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
        if whole_process and not gc.isenabled():
            gc.freeze()  # or it looks for them as the process ends
        gc.enable()


def run(options: Options) -> int:
    """Trains and measures what is not done yet, then writes the report."""
    from bench.analysis.facts import Facts
    from bench.report.build import write_report
    from bench.run.preflight import check

    grid = _load(options)
    before = slurm_queue.run_states(grid.runs, options.runs_dir)
    if options.force == "measure" and not options.dry_run:
        for spec, at in zip(grid.runs, before, strict=True):
            if not at.taken:
                mark_stale(spec, RunPaths(options.runs_dir / spec.run_id))
        before = slurm_queue.run_states(grid.runs, options.runs_dir)
    todo = [
        spec
        for spec, at in zip(grid.runs, before, strict=True)
        if (options.force == "all" or not at.settled or at.state == options.force)
        and not (at.taken if options.on_cluster else at.state == "queued")
    ]
    _tell_taken(grid, before, todo)
    if options.dry_run:
        for text in slurm.scripts(grid.name, todo, options.runs_dir, _settings(options, grid)):
            print(text)
        return OK
    if todo:
        with counter_for(_echo) as show:
            check(todo, options.runs_dir, options.results_dir, options.data_dir, show, _echo)
        skipped = len(grid.runs) - len(todo)
        print(f"{grid.name} ({grid.scale}): {_count(todo)} to do, {skipped} done before")
        for line in hints.in_effect(grid):
            print(line)
        for spec in todo:
            write_json_atomic(RunPaths(options.runs_dir / spec.run_id).spec, spec.to_json())
    if options.on_cluster:
        return _submit(grid, todo, options)
    if todo:
        try:
            with _signals_stop(), progress_for(todo, _echo) as progress:
                BACKENDS[options.dispatch](
                    todo,
                    options.runs_dir,
                    options.data_dir,
                    progress,
                    options.force == "all",
                    options.gpus_per_run,
                )
        except UserError as error:  # nothing can be written any more
            return _refuse(str(error), SOME_FAILED)
    facts = Facts.read(_whole(grid, options), options.runs_dir)
    files = write_report(facts, options.results_dir, _echo)
    _tell_page(files)

    after = slurm_queue.run_states(grid.runs, options.runs_dir)
    failed = [spec for spec, at in zip(grid.runs, after, strict=True) if at.state == "failed"]
    if failed:
        print(f"{_count(failed)} failed; force=failed tries again", file=sys.stderr)
    tried = {spec.run_id for spec in todo}
    undone = [
        (spec, at)
        for spec, at in zip(grid.runs, after, strict=True)
        if spec.run_id in tried and at.state not in ("finished", "failed")
    ]
    if undone:
        spec, at = undone[0]
        why = f"{at.state}, {at.note}" if at.note else at.state
        print(
            f"{_count([spec for spec, _ in undone])} not finished ({spec.name}: {why}); "
            "the same command goes on with what is left",
            file=sys.stderr,
        )
    return SOME_FAILED if failed or undone else OK


def plan(options: Options) -> int:
    """Lists the runs, where each stands, and what is left."""
    from bench.run.preflight import check_classes
    from bench.store.eta import estimate

    grid = _load(options)
    at = slurm_queue.run_states(grid.runs, options.runs_dir)
    open_runs = [spec for spec, now in zip(grid.runs, at, strict=True) if not now.settled]
    check_classes(open_runs, options.data_dir)
    lines = [["run", "row", *grid.axes, "seed", "state", "kimg", "note"]]
    for spec, now in zip(grid.runs, at, strict=True):
        axes = [value_name(key, value) for key, value in spec.axes.items()]
        seed = str(spec.config.train.seed)
        lines.append([spec.run_id, spec.row, *axes, seed, now.state, _kimg(spec, now), now.note])
    _print_table(lines)
    counts = {state: sum(now.state == state for now in at) for state in _order(at)}
    total = sum(spec.total_images for spec in grid.runs)
    left = sum(
        spec.total_images - now.nimg
        for spec, now in zip(grid.runs, at, strict=True)
        if now.state not in ("finished", "incomplete")
    )
    print(
        f"{_count(grid.runs)} ({', '.join(f'{n} {state}' for state, n in counts.items())}), "
        f"{left / 1000:g} of {total / 1000:g} kimg left, scale {grid.scale}"
    )
    _tell_overlooked(grid, at, options)
    gpus = {row.label: _gpus(options, grid, row.label) for row in grid.rows}
    cost = estimate(grid.runs, at, options.runs_dir, lambda spec: gpus[spec.row])
    if text := cost.text("GPU-hours" if any(gpus.values()) else "CPU-hours"):
        print(text)
    if options.on_cluster:
        free = [spec for spec, now in zip(grid.runs, at, strict=True)
                if not (now.settled or now.taken)]  # fmt: skip
        parts = [packs for packs, _ in slurm.arrays(free, _settings(options, grid))]
        count = sum(map(len, parts))
        words = (f"{n} {word}{'s' if n != 1 else ''}" for n, word in
                 ((count, "job"), (len(parts), "array")))  # fmt: skip
        print(f"{_count(free)} to submit, as {' in '.join(words)}")
    return OK


def status(options: Options) -> int:
    """How far every run is, with its latest value of the ranking metric."""
    grid = _load(options)
    at = slurm_queue.run_states(grid.runs, options.runs_dir)
    lines = [["run", "row", "state", "kimg", "latest", "note"]]
    for spec, now in zip(grid.runs, at, strict=True):
        name = spec.name if len(grid.seeds) > 1 else spec.label
        lines.append([spec.run_id, name, now.state, _kimg(spec, now), _latest(grid, now), now.note])
    _print_table(lines)
    finished = sum(now.state == "finished" for now in at)
    _tell_overlooked(grid, at, options)
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
    from bench.analysis.target import with_target
    from bench.report.build import write_report
    from bench.run.preflight import check_folder

    grid = _load(options)
    if options.target is not None:
        grid = with_target(grid, options.target)
    check_folder("results_dir", options.results_dir)
    exports = options.export or []
    facts = Facts.read(grid, options.runs_dir)
    files = write_report(facts, options.results_dir, _echo, exports=exports)
    if not files:
        _tell_others(grid, options)
    _tell_page(files)
    return OK if files else SOME_FAILED


def compare(options: Options) -> int:
    """Runs, or the rows of two grids, against each other: curves, images to a target, a test."""
    from bench.analysis.facts import Facts
    from bench.cli import compare as versus
    from bench.report.build import write_report
    from bench.run.preflight import check_folder

    if (options.runs is None) == (options.grids is None):
        raise UserError("do=compare: give runs=A,B (ids) or grids=A,B (names)")
    if options.runs is not None:
        asked = f"do=compare runs={','.join(options.runs)}"
        grid = versus.of_runs(options.runs, options.runs_dir, options.target)
    else:
        asked = f"do=compare grids={','.join(options.grids or [])}"
        loaded = [
            _checked(name, options, options.seeds, options.only) for name in options.grids or []
        ]
        grid = versus.of_grids(loaded, options.runs_dir, options.target)
    check_folder("results_dir", options.results_dir)
    shown = ("table", "seeds", "targets")
    facts = Facts.read(grid, options.runs_dir)
    files = write_report(facts, options.results_dir, _echo, show=shown, command=asked)
    _tell_page(files)
    return OK if files else SOME_FAILED


def watch(options: Options) -> int:
    """A live table of every run until all are done, or lines once where no one looks."""
    from bench.cli.watch import watch as look

    return OK if look(_load(options), options.runs_dir, _echo) else SOME_FAILED


def verify(options: Options) -> int:
    """Every published number again from the records, and every file by its hash."""
    from bench.analysis.target import with_target
    from bench.report import manifest
    from bench.report.build import target_folder
    from bench.report.verify import verify as check

    grid = _load(options)
    folder = target_folder(grid, options.results_dir)
    if (own := folder / "grid.yaml").is_file():  # made of rows that the shipped grid has no more
        options.grid = str(own)
    published = manifest.read(folder)
    options.seeds = options.seeds or published.get("seeds") or manifest.seeds(published)
    options.overrides = options.overrides or manifest.as_overrides(published)
    grid = _load(options, published.get("norms", "copied"))
    if target := options.target or published.get("target"):
        grid = with_target(grid, target)
    found = check(grid, folder, options.runs_dir)
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
    from bench.analysis import paper_claims as findings
    from bench.analysis.facts import Facts
    from bench.analysis.stats import ALPHA
    from bench.analysis.verdicts import CLAIM_WORDS

    known = grids.load_claims(options.scale)
    if options.grid is not None:
        names = list(dict.fromkeys(claim.grid for claim in known))
        if options.grid not in names:
            raise UserError(unknown("grid with claims", options.grid, names))
        known = [claim for claim in known if claim.grid == options.grid]
    seeds = options.seeds or findings.seeds_found(options.runs_dir) or None
    loaded = {
        name: _checked(name, options, seeds)
        for name in dict.fromkeys(claim.grid for claim in known)
    }
    for claim in known:
        findings.check(claim, loaded[claim.grid])
    cells = {name: Facts.read(grid, options.runs_dir).cells for name, grid in loaded.items()}
    found = [findings.examine(c, loaded[c.grid], cells[c.grid]) for c in known]
    for claim, finding in zip(known, found, strict=True):
        print(findings.to_text(claim, finding))
    words = [finding.verdict for finding in found]
    counts = ", ".join(f"{words.count(word)} {word}" for word in CLAIM_WORDS)
    print(f"scale {options.scale}, each claim tested alone at {ALPHA:.0%}: {counts}")
    return OK


def list_grids(options: Options) -> int:
    """Names every grid, with a line about it."""
    _print_table([[name, about] for name, about in grids.list_grids()])
    print("\npython run_bench.py grid=NAME runs one; --help shows more")
    return OK


def score(options: Options) -> int:
    """Measures two sets of images against each other."""
    import bench.cli.score

    wanted = (options.real, options.fake, options.metrics, options.data_dir, options.out)
    bench.cli.score.score(*wanted, _echo)
    return OK


def prepare(options: Options) -> int:
    """Packs a folder, archive, LMDB or export of images as a data set."""
    import bench.cli.prepare

    if options.data is None or options.source is None:
        raise UserError("do=prepare needs data=NAME source=PATH, and data.resolution= if not 256")
    with counter_for(_echo) as show:
        bench.cli.prepare.prepare(
            options.data, options.source, options.overrides, options.data_dir, show, _echo,
            options.force == "all",
        )  # fmt: skip
    return OK


def fetch_weights(options: Options) -> int:
    """Fetches the files of weights that a grid needs, and says which are to be placed by hand."""
    from bench.metrics import weights
    from bench.run.preflight import check_folder

    grid = _load(options)
    check_folder("data_dir", options.data_dir)
    return OK if weights.fetch_weights(grid, options.data_dir, _echo) else SOME_FAILED


def sample(options: Options) -> int:
    """Draws images from the generator that a run kept."""
    from bench.cli.sample import draw

    if options.run is None:
        raise UserError("run=ID is missing: a run's id (grid=NAME do=plan), folder or .safetensors")
    if options.metrics and len(options.metrics) > 1:
        raise UserError("metrics=: do=sample takes one, whose best snapshot is drawn")
    if options.seeds and len(options.seeds) > 1:
        raise UserError("seeds=: do=sample takes one, of the latents; n= is how many images")
    norms = parse_overrides(options.overrides).get("eval.norms")
    draw(
        options.run,
        options.runs_dir,
        options.out or options.results_dir / "samples" / Path(options.run).stem,
        n=options.n,
        of_class=options.of_class,
        seed=options.seeds[0] if options.seeds else 0,
        truncation=options.truncation,
        steps=options.interpolate,
        metric=options.metrics[0] if options.metrics else None,
        norms=norms and EvalSpec(norms=norms).norms,
        echo=_echo,
    )
    return OK


def prove_resume(options: Options) -> int:
    """Kills a short run again and again, and compares it with one that was never touched."""
    from bench.cli.prove_resume import proof
    from bench.run.preflight import check_folder

    options.grid = options.grid or "smoke"
    spec = _load(options).runs[0]
    check_folder("runs_dir", options.runs_dir)
    same = proof(spec, options.kills, options.steps, options.runs_dir, options.data_dir, _echo)
    return OK if same else SOME_FAILED


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


def _tell_page(files: Sequence[Path]) -> None:
    """Where to look, the last line of a report."""
    for path in files:
        if path.name == "index.html":
            print(f"to look at: {path}")


def _submit(grid: Grid, todo: Sequence[RunSpec], options: Options) -> int:
    """Hands the runs to the cluster and leaves."""
    if not todo:
        print(f"{grid.name} ({grid.scale}): nothing to submit")
        return OK
    try:
        slurm.submit(
            grid.name, todo, options.runs_dir, options.data_dir, _settings(options, grid), _echo,
            anew=options.force == "all",
        )  # fmt: skip
    except UserError as error:
        return _refuse(str(error), SOME_FAILED)
    print("do=status shows how far they are, do=cancel ends them; this terminal may close")
    return OK


def _settings(options: Options, grid: Grid) -> Callable[[RunSpec], SlurmFile]:
    by_row = {row.label: options.settings(row.label, grid) for row in grid.rows}
    return lambda spec: by_row[spec.row]


def _gpus(options: Options, grid: Grid, row: str) -> int:
    """GPUs of a run of this row: what a job asks for, or one of this machine."""
    if options.on_cluster:
        asked = options.settings(row, grid)
        return slurm_job.share(asked.gpus, asked.runs_per_job) if asked.gpus else 0
    return int(local.slots()[0] is not None)


def _tell_overlooked(grid: Grid, at: Sequence[RunState], options: Options) -> None:
    """Rows that do not differ in effect, and other runs where none of these is there."""
    for line in hints.in_effect(grid):
        print(line)
    if all(now.state == "missing" for now in at):
        _tell_others(grid, options)


def _tell_others(grid: Grid, options: Options) -> None:
    if others := hints.other_settings(grid, options.runs_dir):
        print(f"{grid.name}: {others}")


def _tell_taken(grid: Grid, at: Sequence[RunState], todo: Sequence[RunSpec]) -> None:
    ids = {spec.run_id for spec in todo}
    taken = [
        (spec, now)
        for spec, now in zip(grid.runs, at, strict=True)
        if now.taken and spec.run_id not in ids
    ]
    if taken:
        spec, now = taken[0]
        print(
            f"{_count([spec for spec, _ in taken])} left alone, queued or running "
            f"({spec.name}: {now.note}); do=cancel ends jobs"
        )


@contextmanager
def _signals_stop() -> Iterator[None]:
    """Within, being asked to end is Ctrl-C: workers are stopped and claims given back."""
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


def _load(options: Options, norms: str | None = None) -> Grid:
    if options.grid is None:
        raise UserError("grid=NAME is missing; python run_bench.py do=list shows the grids")
    return _checked(options.grid, options, options.seeds, options.only, norms)


def _checked(
    name: str,
    options: Options,
    seeds: Sequence[int] | None,
    only: Sequence[str] | None = None,
    norms: str | None = None,
) -> Grid:
    """A grid as the command line changes it, its report section checked as well."""
    from bench.analysis.validation import validate

    grid = grids.load(name, options.scale, options.overrides, seeds, only, norms)
    return validate(grid, narrowed=only is not None)


def _whole(grid: Grid, options: Options) -> Grid:
    """The grid with all its rows, for a report in which the others keep their place."""
    if options.only is None:
        return grid
    assert options.grid is not None
    try:
        return _checked(options.grid, options, options.seeds)
    except UserError:  # an override that suits the chosen rows alone
        return grid


def _kimg(spec: RunSpec, now: RunState) -> str:
    return f"{now.nimg / 1000:g}/{spec.total_images / 1000:g}"


def _latest(grid: Grid, now: RunState) -> str:
    metrics = now.metrics or {}
    wanted = grid.report.rank_by
    chosen = wanted if wanted in metrics else next(iter(metrics), None)
    return f"{chosen} {metrics[chosen]:.4g}" if chosen else ""


def _order(at: Sequence[RunState]) -> list[str]:
    return list(dict.fromkeys(now.state for now in at))


def _count(runs: Sequence[RunSpec]) -> str:
    return f"{len(runs)} run" + ("s" if len(runs) != 1 else "")


def _print_table(lines: Sequence[Sequence[str]]) -> None:
    print("\n".join(terminal.aligned(lines)))


def _echo(text: str) -> None:
    print(text, flush=True)


def _refuse(message: str, status: int = REFUSED) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status
