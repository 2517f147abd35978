"""Who may import whom, read from the files themselves."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*ROOT.glob("projgan/**/*.py"), *ROOT.glob("bench/**/*.py")])

# What `do=plan`, `do=status` and `do=list` load; none of it may need torch to be imported.
TORCH_FREE = [
    "bench.cli.main", "bench.cli.options", "bench.config.grid", "bench.config.spec",
    "bench.config.paths", "bench.config.metrics", "bench.store.record", "bench.store.lease",
    "bench.store.eta", "bench.run.progress", "bench.run.stop", "bench.dispatch",
    "bench.dispatch.slurm_queue", "bench.dispatch.code_snapshot", "bench.dispatch.slurm",
    "projgan.config", "projgan.errors", "projgan.files", "projgan.backbones.registry",
]  # fmt: skip
# What only reads files: no module of the training or measuring side.
REPORT_SIDE = (["analysis"], ["report"])
# Which rooms of bench/ a room may import from; docs/code.md says what is in each.
ROOMS = {
    "config": set(),
    "store": {"config"},
    "metrics": {"config", "store"},
    "run": {"config", "store", "metrics"},
    "dispatch": {"config", "store", "run"},
    "analysis": {"config", "store"},
    "report": {"config", "store", "analysis"},
    "cli": {"config", "store", "metrics", "run", "dispatch", "analysis", "report"},
}
ONLY_IN = {
    "omegaconf": {"bench/config/yaml_types.py"},
    "matplotlib": {"bench/report/figures.py", "bench/report/fonts.py"},
    "submitit": {"bench/dispatch/slurm.py", "bench/dispatch/slurm_job.py"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


@functools.cache
def imports(path: Path, when_loaded: bool = False) -> frozenset[str]:
    """Modules that a file imports; `when_loaded`: only what importing the file itself imports."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if when_loaded and (lazy or _only_for_types(child)):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.add(child.module)
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(found)


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def packages(path: Path, when_loaded: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imports(path, when_loaded)}


def loaded_by(module: str) -> set[str]:
    """Own modules that importing `module` loads, packages' __init__ files included."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen or name not in MODULES:
            continue
        seen.add(name)
        todo += imports(MODULES[name], when_loaded=True)
        todo += [name.rpartition(".")[0]]
    return seen


def test_the_files_are_found() -> None:
    assert {"bench.cli.main", "projgan.train", "bench.dispatch"} <= MODULES.keys()


@pytest.mark.parametrize("name", [n for n in MODULES if n.split(".")[0] == "projgan"])
def test_the_science_knows_no_harness(name: str) -> None:
    assert "bench" not in packages(MODULES[name])


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_stays_in_its_room(package: str) -> None:
    users = {str(p.relative_to(ROOT)) for p in FILES if package in packages(p)}
    assert users <= ONLY_IN[package]


@pytest.mark.parametrize("name", TORCH_FREE)
def test_plans_need_no_torch(name: str) -> None:
    for loaded in loaded_by(name):
        heavy = packages(MODULES[loaded], when_loaded=True) & {"torch", "timm", "torchvision"}
        assert not heavy, f"{name} loads {loaded}, which imports {heavy}"


@pytest.mark.parametrize("name", [n for n in MODULES if n.split(".")[1:2] in REPORT_SIDE])
def test_reports_only_read_files(name: str) -> None:
    used = imports(MODULES[name])
    assert "torch" not in packages(MODULES[name])
    assert not {m for m in used if m.startswith(("projgan.train", "bench.run.runner"))}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_the_rooms_below_alone(room: str) -> None:
    for name in (n for n in MODULES if n.split(".")[:2] == ["bench", room]):
        used = {m.split(".")[1] for m in imports(MODULES[name]) if m.startswith("bench.")}
        assert used <= ROOMS[room] | {room}, f"{name} imports from {used - ROOMS[room] - {room}}"


def test_bench_has_these_rooms_and_its_door_alone() -> None:
    places = {p.name for p in (ROOT / "bench").iterdir() if not p.name.startswith("__pycache__")}
    assert places == {*ROOMS, "__init__.py"}


def test_imports_within_bench_have_few_floors() -> None:
    """The longest chain of rooms and of modules: what a reader climbs from a verb to a hash."""
    bench = {name for name in MODULES if name.startswith("bench.")}
    graph = {n: (imports(MODULES[n], when_loaded=True) & bench) - {n} for n in bench}
    floors: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(graph).static_order():
        floors[name] = 1 + max((floors[below] for below in graph[name]), default=0)
    assert max(floors.values()) <= 12, max(floors, key=floors.__getitem__)


def test_imports_make_no_circle() -> None:
    def needs(name: str) -> set[str]:
        # A package and its own modules may name each other.
        used = imports(MODULES[name], when_loaded=True) & MODULES.keys()
        return {u for u in used if not (within(u, name) or within(name, u))}

    def within(module: str, package: str) -> bool:
        return f"{module}.".startswith(f"{package}.")

    graph = {name: needs(name) for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle's names


@pytest.mark.parametrize("words", ["do=plan grid=backbones", "do=status grid=backbones", "do=list"])
def test_the_command_line_starts_without_heavy_libraries(words: str) -> None:
    code = (
        f"import sys; from bench.cli.main import main; main({words.split()});"
        "bad = {'torch', 'timm', 'numpy', 'scipy', 'matplotlib', 'pandas', 'PIL', 'jinja2', 'rich',"
        "'submitit'} & set(sys.modules);"
        "sys.exit(f'loaded {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert said.count("missing") + said.count("finished") >= 10 or "backbones" in said.split()


def test_a_node_with_torch_and_timm_alone_can_train_and_measure_without_scipy() -> None:
    code = """
import sys
from importlib.machinery import PathFinder
absent = {"scipy", "pandas", "matplotlib", "open_clip", "cleanfid", "omegaconf", "torch_fidelity"}

finders = list(sys.meta_path)

class Others:
    find_distributions = staticmethod(PathFinder.find_distributions)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            return None
        return next((s for f in finders if (s := f.find_spec(name, path, target))), None)

sys.meta_path[:] = [Others()]
import numpy as np
import bench.run.runner, bench.dispatch.worker
from bench.metrics.kernel import features_to_kernel
from projgan.config import Backbone
from projgan.backbones import build_backbone
build_backbone(Backbone(name="efficientnet_lite0", zoo="lab"), 64)
features = np.random.default_rng(0).normal(size=(2, 40, 8))
assert np.isfinite(features_to_kernel(*features).value)
assert not absent & {name.partition(".")[0] for name in sys.modules}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
