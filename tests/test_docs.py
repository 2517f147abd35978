"""What the docs show is there: links lead somewhere, commands are understood."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import metrics_docs
import pytest

from bench.cli import main
from bench.cli.options import parse
from bench.config import grid as grids
from bench.config.paths import GRIDS
from bench.config.schema import EvalSection, GridFile, Resources, RowEntry
from bench.config.spec import ReportSpec

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *ROOT.glob("results/**/README.md")]
FENCE = re.compile(r"```sh\n(.*?)```", re.DOTALL)
YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
QUICK = ("plan", "list", "status", "claims", "watch")


def commands() -> list[tuple[str, str]]:
    """Page and command line of every `python run_bench.py` in a block of shell commands."""
    found = []
    for page in PAGES:
        for block in FENCE.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip().startswith("python run_bench.py"):
                    found.append((page.name, line.strip()))
    return found


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)[2:]


def verb(line: str) -> str:
    given = [word.removeprefix("do=") for word in words(line) if word.startswith("do=")]
    return given[0] if given else "run" if words(line) else "list"


def test_the_docs_show_commands() -> None:
    assert len(commands()) > 15
    assert {verb(line) for _, line in commands()} >= {"run", "plan", "report", "verify", "compare"}


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda text: text[:60])
def test_a_command_is_understood(page: str, line: str) -> None:
    parse(words(line))


@pytest.mark.parametrize(
    "line",
    sorted({line for _, line in commands() if verb(line) in QUICK}),
    ids=lambda text: text[:60],
)
def test_a_quick_command_runs(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # with no run, and nothing of anyone's
    assert main.main(words(line)) == 0, capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # they only look


PUBLISHED = "runs_dir=results/reference/records"


@pytest.mark.parametrize(
    "line",
    sorted({line for _, line in commands() if PUBLISHED in line and verb(line) not in QUICK}),
    ids=lambda text: text[:60],
)
def test_a_command_about_what_is_published_runs(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    elsewhere = [] if "results_dir=" in line else [f"results_dir={tmp_path}"]
    assert main.main([*words(line), *elsewhere]) == 0, capsys.readouterr()
    assert elsewhere or verb(line) == "verify"  # nothing that is published is written over


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_grid_that_is_shown_is_whole(page: Path, tmp_path: Path) -> None:
    for i, block in enumerate(YAML.findall(page.read_text(encoding="utf-8"))):
        if "rows:" in block:
            path = tmp_path / f"{i}.yaml"
            path.write_text(block)
            assert grids.load(str(path)).runs


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        assert (page.parent / path).exists(), f"{page.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", (page.parent / path).read_text(), re.MULTILINE)
            known = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in known, f"{page.name}: {target}"


def test_the_table_of_metrics_is_that_of_their_rows() -> None:
    """`python tests/metrics_docs.py` writes it."""
    text = metrics_docs.PAGE.read_text(encoding="utf-8")
    assert f"{metrics_docs.BEGIN}\n{metrics_docs.markdown()}{metrics_docs.END}" in text


def test_the_files_that_the_code_map_names_are_there() -> None:
    text = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:bench|projgan|tests|experiments)/[\w/.]*)`", text)
    assert len(named) > 20 and not [name for name in named if not (ROOT / name).exists()]


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert f"docs/{page.name}" in text, page.name


def test_every_grid_is_named_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [path.stem for path in GRIDS.glob("*.yaml") if f"`{path.stem}`" not in text]
    assert not missing


def test_the_readme_shows_the_two_commands_that_the_check_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("python3 -m venv")]
    assert len(lines) == 2
    assert "grid=backbones" in lines[0] and lines[1].endswith("pytest")


def test_the_picture_of_the_report_is_small() -> None:
    assert (ROOT / "docs" / "report.png").stat().st_size < 300_000


@pytest.mark.parametrize("section", [GridFile, RowEntry, EvalSection, ReportSpec, Resources])
def test_every_key_of_a_grid_file_is_documented(section: type) -> None:
    lines = (ROOT / "docs/grids.md").read_text(encoding="utf-8").splitlines()
    firsts = " ".join(line.split("|")[1] for line in lines if line.startswith("| `"))
    keys = {field.name for field in dataclasses.fields(section)}
    assert keys <= set(re.findall(r"`(\w+)`", firsts))
