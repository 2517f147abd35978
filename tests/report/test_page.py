"""What the report's page says, read from its text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import make_grid, make_record, write_record

from bench.analysis import cells as aggregate
from bench.analysis.facts import Facts
from bench.config import grid as grids
from bench.config.columns import Column
from bench.config.spec import Claim, ReportSpec
from bench.report import captions, figures
from bench.report.content import tables_of
from bench.report.lines import Line
from bench.report.page.build import page
from bench.report.page.cost import ledger
from bench.report.page.figures import across
from bench.report.page.heat import heats
from bench.report.page.provenance import evidence
from bench.report.page.summary import Sentence, answer

NAMES = {
    "EfficientNet-lite1": "efficientnet_lite1",
    "EfficientNet-lite2": "efficientnet_lite2",
    "ResNet18": "resnet18",
    "ResNet50": "resnet50",
    "DeiT": "deit",
}
REPORT = ReportSpec(paper="table2", rank_by="fd_lab", columns=("fd_lab", "paper_fid"))


def made(folder: Path, values: Mapping[str, Sequence[float]], report: ReportSpec = REPORT) -> Facts:
    """The facts of a grid with a value of FD-lab for each row and seed."""
    seeds = range(max(map(len, values.values())))
    rows = {label: {"backbone.name": NAMES[label]} for label in values}
    grid = make_grid(rows, report, seeds=tuple(seeds))
    for spec in grid.runs:
        if (seed := spec.config.train.seed) < len(values[spec.row]):
            value = values[spec.row][seed]
            curve = {1000: {"fd_lab": 3 * value}, 4000: {"fd_lab": value}}
            write_record(folder, spec, make_record(spec, curve))
    return Facts.read(grid, folder)


def said(folder: Path, values: Mapping[str, Sequence[float]]) -> dict[str, Sentence]:
    return {s.asks: s for s in answer(made(folder, values))}


def test_one_seed_settles_nothing(tmp_path: Path) -> None:
    found = said(tmp_path, {"EfficientNet-lite1": [2.0], "ResNet18": [4.0]})
    assert found["Which wins?"].short == "EfficientNet-lite1 leads, not settled"
    assert "one run" in found["Which wins?"].says
    assert "2 (50%) below the next, ResNet18 (4)" in found["By how much?"].says
    assert found["How sure?"].tone == "open" and "one seed" in found["How sure?"].short


def test_thousands_are_written_out(tmp_path: Path) -> None:
    found = said(tmp_path, {"EfficientNet-lite1": [1234.5], "ResNet18": [1413.0]})
    assert "1234 (one run" in found["Which wins?"].says
    assert found["By how much?"].short == "178 FD-lab ahead of the next"
    assert "e+" not in " ".join(s.says + s.short for s in found.values())


def test_three_seeds_cannot_and_six_can(tmp_path: Path) -> None:
    few = {"EfficientNet-lite1": [1.0, 1.1, 0.9], "ResNet18": [9.0, 9.2, 8.8]}
    found = said(tmp_path / "few", few)["How sure?"]
    assert found.tone == "open"
    assert "3 seeds can never settle it" in found.says and "takes 6 seeds" in found.says
    assert "overlap" not in found.says
    many = {"EfficientNet-lite1": [1 + i / 99 for i in range(6)], "ResNet18": [9.0] * 6}
    found = said(tmp_path / "many", many)["How sure?"]
    assert found.tone == "yes"
    assert "beats every other row" in found.says and "first in 6 of 6" in found.says


def test_seeds_that_disagree_leave_it_open(tmp_path: Path) -> None:
    values = {"EfficientNet-lite1": [1.0, 5.0] * 4, "ResNet18": [3.0, 4.0] * 4}
    found = said(tmp_path, values)["How sure?"]
    assert found.tone == "open" and "surely beats 0 of 1 other rows" in found.says
    assert "first in 4 of 8 seeds" in found.says


def test_the_papers_order_is_agreed_with_or_not(tmp_path: Path) -> None:
    # The paper has 1.65, 1.69, 2.46, 4.16 and 4.40.
    same = {"EfficientNet-lite1": [1.0], "EfficientNet-lite2": [2.0], "DeiT": [3.0],
            "ResNet18": [4.0], "ResNet50": [5.0]}  # fmt: skip
    found = said(tmp_path / "same", same)["Does the paper say so?"]
    assert found.short == "the same first, order agrees" and found.tone == "yes"
    assert "rho 1.00" in found.says
    reverse = {name: [6 - value[0]] for name, value in same.items()}
    found = said(tmp_path / "reverse", reverse)["Does the paper say so?"]
    assert found.short == "another first, order is the reverse" and found.tone == "no"
    assert "in place 5 of 5" in found.says


def crossed(folder: Path, values: Mapping[str, Mapping[object, float]]) -> dict[str, Sentence]:
    """What a grid of rows by subsets says; one seed."""
    rows = {label: {"backbone.name": NAMES[label]} for label in values}
    report = replace(REPORT, paper=None, compare_to="ResNet18")
    grid = make_grid(rows, report, axes={"data.subset": (1000, None)})
    for spec in grid.runs:
        value = values[spec.row][spec.axes["data.subset"]]
        write_record(folder, spec, make_record(spec, {4000: {"fd_lab": value}}))
    return {s.asks: s for s in answer(Facts.read(grid, folder))}


def test_rows_compete_at_the_same_choice_of_an_axis_alone(tmp_path: Path) -> None:
    few, every = 1000, None
    same = {"DeiT": {few: 5.0, every: 2.0}, "ResNet18": {few: 8.0, every: 3.0}}
    found = crossed(tmp_path / "same", same)["Which wins?"]
    assert found.short == "DeiT, each of 2 times, not settled"
    assert [word for word, _ in found.points] == ["subset=1000", "subset=all"]
    assert "5 (one run" in found.points[0][1] and "3 (38%) below the next" in found.points[0][1]
    turned = {"DeiT": {few: 5.0, every: 3.0}, "ResNet18": {few: 8.0, every: 2.0}}
    found = crossed(tmp_path / "turned", turned)["Which wins?"]
    assert found.short == "DeiT (1 of 2), ResNet18 (1 of 2), not settled"


def test_how_soon_the_target_is_reached(tmp_path: Path) -> None:
    values = {"ResNet18": [4.0], "DeiT": [1.0], "ResNet50": [9.0]}
    facts = made(tmp_path, values, replace(REPORT, paper=None, target="row:ResNet18"))
    (found,) = [s for s in answer(facts) if s.asks == "How soon?"]
    assert found.short == "DeiT after 1 thousand images, 4 times fewer"
    assert "the best of ResNet18 (4)" in found.says and "too early" in found.says
    assert [name for name, _ in found.points] == ["DeiT", "ResNet18", "ResNet50"]
    assert found.points[2][1] == "not within its budget (0 of 1 runs)"
    assert "How soon?" in page(facts, tables_of(facts))
    grid = replace(facts.grid, report=replace(facts.grid.report, target="row:DeiT"))
    (found,) = [s for s in answer(Facts(grid, facts.runs)) if s.asks == "How soon?"]
    assert found.short == "no row but DeiT reaches it"
    assert "How soon?" not in said(tmp_path, values)


def test_every_finding_says_where_it_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = Claim("c", "It is so.", "Table 0", "made", "below", "fd_lab", ("DeiT",), ("ResNet18",))
    other = replace(what, these=("ResNet18",), than=("DeiT",))
    monkeypatch.setattr(grids, "load_claims", lambda scale: [what, other])
    facts = made(tmp_path, {"ResNet18": [4.0], "DeiT": [1.0]})
    (found,) = [s for s in answer(facts) if "findings" in s.asks]
    assert found.short == "2 undecided (1 as claimed so far, 1 the other way round so far)"
    assert found.points[0] == ("undecided", "It is so (p = 1, n = 1 seed, so far as claimed).")
    text = page(facts, tables_of(facts))
    assert '<a class="runs" href="#row-1">FD-lab of DeiT: 1 (n=1)</a>' in text


def test_the_page_says_how_to_write_it_again(tmp_path: Path) -> None:
    facts = made(tmp_path, {"ResNet18": [4.0, 5.0]})
    given = {"data.path": "/home/someone/church", "train.batch": 8}
    facts = Facts(replace(facts.grid, overrides=given), facts.runs)
    text = page(facts, tables_of(facts))
    again = "grid=made &#39;seeds=[0,1]&#39; data.path=church train.batch=8 do=report"
    assert again in text


def named(chart: str) -> dict[str, tuple[float, float]]:
    """The texts of a chart with their places in pixels."""
    found = re.findall(r"<text[^>]*translate\(([\d.]+) ([\d.]+)\)[^>]*>([^<]+)</text>", chart)
    found += [
        (x, y, text)
        for x, y, text in re.findall(
            r'<text[^>]*? x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)</text>', chart
        )
    ]
    return {text: (float(x), float(y)) for x, y, text in found}


def test_crowded_points_keep_their_names_apart() -> None:
    """Two groups of points as near to each other as the paper's EfficientNets."""
    at = [(3.0, 2.5), (3.7, 1.65), (4.4, 1.7), (6.4, 1.8), (11.0, 2.35), (300.0, 12.4)]
    points = [
        (f"EfficientNet-lite{i}", figures.look(i, None), x, y, None, f"row-{i}")
        for i, (x, y) in enumerate(at)
    ]
    chart = figures.page_scatter(points, "x", "y")
    places = [place for text, place in named(chart).items() if text.startswith("Eff")]
    assert len(places) == len(points)
    for (ax, ay), (bx, by) in itertools.combinations(places, 2):
        assert abs(ay - by) >= 12 or abs(ax - bx) >= 60
    assert all(0 <= x <= 520 and 0 <= y <= 360 for x, y in places)
    many = figures.page_scatter(points * (figures.MOST_NAMES // 6 + 1), "x", "y")
    assert not [text for text in named(many) if text.startswith("Eff")]


def test_no_two_lines_look_alike(tmp_path: Path) -> None:
    """Ten rows at two values of an axis: more rows than colours, and twice as many lines."""
    rows = {f"row {i}": {"train.ema_kimg": 1.0 + i} for i in range(10)}
    grid = make_grid(rows, REPORT, axes={"backbone.weights": ("pretrained", "random")})
    cells = aggregate.cells(aggregate.read_runs(grid.runs, tmp_path))
    found = figures.looks(cells)
    assert len({repr(look) for look in found.values()}) == len(cells) == 20
    for cell in cells:  # a row keeps its colour and marker, a value of the axis its dashes
        first = found[f"{cell.row} · weights=pretrained"]
        assert all(found[cell.name][key] == first[key] for key in ("color", "marker"))
    assert len({repr(look["linestyle"]) for look in found.values()}) == 2


def test_a_targets_name_stands_clear_of_the_curves() -> None:
    falling = Line("A", (0, None), 1, (1e3, 1e4), (1.0, 2.0), (9.0, 4.9), (9.0, 4.9), (9.0, 4.9))
    chart = figures.page_curves([falling], Column("y", "y"), False, [5.0])
    x, _ = named(chart)["target 5.00"]
    assert x < 100  # the curve comes down to it at the other end


def test_a_numeric_axis_has_a_chart_of_its_own(tmp_path: Path) -> None:
    grid = make_grid({"A": {}}, REPORT, axes={"data.subset": (1000, None)}, seeds=(0, 1))
    for spec in grid.runs:
        value = 5.0 if spec.axes["data.subset"] else 2.0
        value += spec.config.train.seed
        write_record(tmp_path, spec, make_record(spec, {4000: {"fd_lab": value}}))
    facts = Facts.read(grid, tmp_path)
    found = across(facts)
    assert found is not None and found.title == "FD-lab against training images"
    ((name, points),) = figures.by_axis(facts.cells, "fd_lab", "data.subset").items()
    assert name == "A" and [where for where, _ in points] == [1000.0, 8192.0]
    assert [stat.mean for _, stat in points] == [5.5, 2.5]
    assert found.chart.count("<use") >= 2 and "training images" in found.chart
    assert across(made(tmp_path / "flat", {"ResNet18": [4.0]})) is None
    # Over two pretrainings as well, over which cells are averaged.
    runs = [
        replace(run, spec=replace(run.spec, axes={**run.spec.axes, "backbone.pretrain_seed": seed}))
        for seed in (0, 1)
        for run in facts.runs
    ]
    axes = {**grid.axes, "backbone.pretrain_seed": (0, 1)}
    again = across(Facts(replace(grid, axes=axes), runs))
    assert again is not None and again.title == found.title


def test_no_record_says_no_winner(tmp_path: Path) -> None:
    assert answer(made(tmp_path, {"ResNet18": []})) == []


def test_the_page_is_the_same_twice_and_needs_nothing_else(tmp_path: Path) -> None:
    facts = made(tmp_path, {"EfficientNet-lite1": [2.0, 2.5], "ResNet18": [4.0, 3.5]})
    texts = [page(facts, tables_of(facts), ["table.md"]) for _ in range(2)]
    assert texts[0] == texts[1]
    assert not re.findall(r"(?:src|href)=\"(?!#|data:|table\.md)", texts[0])
    assert "http:" not in texts[0] and "https" not in texts[0]
    assert "url(" not in texts[0] and "@import" not in texts[0]
    assert "Content-Security-Policy" in texts[0]


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    made_of = made(tmp_path, {"ResNet18": [4.0], "ResNet50": [5.0]})
    evil = "</script><img src=x onerror=alert(1)>"
    runs = [
        replace(run, spec=replace(run.spec, row=evil)) if run.spec.row == "ResNet18" else run
        for run in made_of.runs
    ]
    facts = Facts(replace(made_of.grid, about=evil), runs)
    text = page(facts, tables_of(facts))
    assert "<img src=x" not in text
    assert text.count("</script>") == 2  # the evidence and the code


def test_each_level_is_coloured_by_its_ratio(tmp_path: Path) -> None:
    rows = {name: {"backbone.name": key} for name, key in list(NAMES.items())[:3]}
    grid = make_grid(rows, replace(REPORT, baseline="ResNet18"))
    for spec, factor in zip(grid.runs, (0.25, 2.0, 1.0), strict=True):
        metrics = {f"fd_l{i}": i * factor for i in (1, 2, 3, 4)} | {"fd_lab": factor}
        write_record(tmp_path, spec, make_record(spec, {4000: metrics}))
    facts = Facts.read(grid, tmp_path)
    (found,) = heats(facts)
    assert found.rows[0][1][1].opens == "EfficientNet-lite1/fd_l2"
    assert [[f.step for f in fields] for _, fields in found.rows] == [[-4] * 5, [2] * 5, [0] * 5]
    assert found.rows[0][1][0].text == "×0.25"


def test_the_evidence_of_a_picked_best_value_has_each_runs_own(tmp_path: Path) -> None:
    report = replace(REPORT, columns=("fd_lab", "best:fd_lab"))
    facts = made(tmp_path, {"ResNet18": [4.0, 5.0]}, report)
    opens = "ResNet18/best:fd_lab"
    found = evidence(facts, tables_of(facts)["table"], [opens])[opens]
    assert [value for _, _, value in found["runs"]] == ["4", "5"]
    assert any("picked after looking" in note for note in found["notes"])


def test_a_floor_of_metrics_that_are_not_shown_has_no_line(tmp_path: Path) -> None:
    facts = made(tmp_path, {"ResNet18": [4.0]})
    floor = {"fake": 100, "real": 100, "whole": True, "metrics": {"fd_lab": 1.25}}
    (spec,) = facts.grid.runs
    write_record(tmp_path, spec, make_record(spec, {4000: {"fd_lab": 4.0}}, floor=floor))
    facts = Facts.read(facts.grid, tmp_path)
    assert captions.floor_line(facts, ["fd_lab"]).endswith("others: FD-lab 1.25.")
    assert captions.floor_line(facts, ["images_per_s"]) == ""


def test_a_ledger_is_averaged_over_the_runs_that_have_one(tmp_path: Path) -> None:
    facts = made(tmp_path, {"ResNet18": [4.0, 5.0], "ResNet50": [6.0, 7.0]})
    assert ledger(facts) is None
    for spec, idle in zip(facts.grid.runs, (0.25, 0.125, None, None), strict=True):
        if idle:
            shares = {"data": 0.5, "idle": idle, "rest": 0.5 - idle}
            extra = {"ledger": {"shares": shares, "contended": idle > 0.2}}
            write_record(tmp_path, spec, make_record(spec, {4000: {"fd_lab": 1.0}}, **extra))
    facts = Facts.read(facts.grid, tmp_path)
    found = ledger(facts)
    assert found is not None
    assert found.parts == ["data", "idle", "rest"]
    assert found.rows == [("ResNet18", [50.0, 18.8, 31.2])] and found.shared == ["ResNet18"]
    text = page(facts, tables_of(facts))
    assert "The machine was shared during ResNet18." in text and "18.8" in text
