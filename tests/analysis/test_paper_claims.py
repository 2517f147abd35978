"""Findings of the paper against records whose answer is known."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_records import make_grid, make_record, write_record

from bench.analysis import paper_claims, paper_numbers
from bench.analysis.cells import FIELDS
from bench.analysis.checks import CHECKS, Evidence, Finding, _pairs
from bench.analysis.facts import Facts
from bench.analysis.paper_claims import check, seeds_found, to_text
from bench.cli import main
from bench.config import grid as grids
from bench.config import paths
from bench.config.spec import Claim, Grid, ReportSpec
from bench.report.content import tables_of
from bench.report.tables import to_csv
from projgan.errors import ConfigError, UserError

NAMES = ("A", "B", "C", "D", "E", "F", "G", "H")
ROWS = {name: {"train.ema_kimg": 1.0 + i} for i, name in enumerate(NAMES)}
Values = Mapping[str, Sequence[float]]  # row -> one value per seed


def claim(kind: str, **fields: Any) -> Claim:
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Claim("c", "It is so.", "Table 0", "made", kind, **{"metric": "fd_lab", **fields})


def write(runs: Path, grid: Grid, values: Values, **changes: Any) -> None:
    """Records of one snapshot each; a row without values is left out."""
    for spec in grid.runs:
        points = values.get(spec.row, ())
        if spec.config.train.seed < len(points):
            curve = {4000: {"fd_lab": points[spec.config.train.seed], "recall": 1.0}}
            write_record(runs, spec, make_record(spec, curve, **changes))


def examine(what: Claim, grid: Grid, runs_dir: Path) -> Finding:
    return paper_claims.examine(what, grid, Facts.read(grid, runs_dir).cells)


def decide(tmp_path: Path, what: Claim, values: Values) -> Finding:
    seeds = range(max(map(len, values.values())))
    grid = make_grid({name: ROWS[name] for name in values}, ReportSpec(), seeds=seeds)
    check(what, grid)
    write(tmp_path, grid, values)
    return examine(what, grid, tmp_path)


def around(mean: float, n: int, seed: int, spread: float = 0.1) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(mean, spread) for _ in range(n)]


# One row or group below another.

BELOW = claim("below", these=["A"], than=["B"])


def test_a_clear_difference_over_enough_seeds_is_decided(tmp_path: Path) -> None:
    low, high = around(1, 8, 0), around(2, 8, 1)
    found = decide(tmp_path / "1", BELOW, {"A": low, "B": high})
    assert (found.verdict, found.n, found.unit) == ("supported", 8, "seeds")
    assert found.p == pytest.approx(2 / 2**8)
    assert found.effect.startswith("FD-lab -1") and "(-5" in found.effect
    assert found.effect.endswith("as claimed in 8 of 8 seeds")
    assert found.evidence[0].startswith("FD-lab of A: 0.96")
    assert decide(tmp_path / "2", BELOW, {"A": high, "B": low}).verdict == "contradicted"


def test_few_seeds_decide_nothing_however_clear(tmp_path: Path) -> None:
    for n, needed in ((1, "1 seed:"), (3, "3 seeds:"), (5, "5 seeds:")):
        found = decide(tmp_path / str(n), BELOW, {"A": [1.0] * n, "B": [9.0] * n})
        assert found.verdict == "undecided" and found.leans is True
        never = f"{needed} it can never reject; it needs 6"
        assert found.reason == f"{never}; so far it is as claimed"
        found = decide(tmp_path / f"{n} turned", BELOW, {"A": [9.0] * n, "B": [1.0] * n})
        assert found.reason == f"{never}; so far it is the other way round"
    assert decide(tmp_path / "6", BELOW, {"A": [1.0] * 6, "B": [9.0] * 6}).verdict == "supported"


def test_noise_is_undecided(tmp_path: Path) -> None:
    values = {"A": around(1, 10, 0, 1.0), "B": around(1.05, 10, 1, 1.0)}
    found = decide(tmp_path, BELOW, values)
    assert found.verdict == "undecided" and found.reason


def test_of_equal_rows_about_one_in_twenty_is_decided() -> None:
    e = Evidence(BELOW, make_grid(ROWS, ReportSpec()), {})
    found = [_pairs(e, around(0, 8, i), 1.0, "seeds", 0.1).verdict for i in range(200)]
    assert 1 <= 200 - found.count("undecided") <= 18


def test_seeds_are_paired(tmp_path: Path) -> None:
    """A difference much smaller than what the seeds have in common."""
    common = around(10, 8, 0, spread=5.0)
    values = {"A": [c - 0.1 for c in common], "B": common}
    assert decide(tmp_path, BELOW, values).verdict == "supported"


def test_groups_of_rows_are_means(tmp_path: Path) -> None:
    what = claim("below", these=["A", "B"], than=["C", "D"])
    values = {"A": [1.0] * 6, "B": [5.0] * 6, "C": [4.0] * 6, "D": [4.0] * 6}
    found = decide(tmp_path, what, values)
    assert found.verdict == "supported" and "FD-lab -1 (-25%)" in found.effect


def test_a_metric_of_which_more_is_better_is_turned(tmp_path: Path) -> None:
    grid = make_grid({"A": ROWS["A"], "B": ROWS["B"]}, ReportSpec(), seeds=range(6))
    for spec in grid.runs:
        metrics = {"recall": 0.8 if spec.row == "A" else 0.4}
        write_record(tmp_path, spec, make_record(spec, {4000: metrics}))
    found = examine(replace(BELOW, metric="recall"), grid, tmp_path)
    assert found.verdict == "supported"
    assert found.effect.startswith("Recall +0.4 (+100%) [+0.4, +0.4], as claimed in 6")


# No difference, and published judgements.


def test_rows_are_alike_within_a_share(tmp_path: Path) -> None:
    what = claim("alike", these=["A"], than=["B"], within=0.1)
    near = {"A": around(10, 8, 0), "B": around(10.2, 8, 1)}
    found = decide(tmp_path / "1", what, near)
    assert (found.verdict, found.n, found.p) == ("supported", 8, None)
    far = {"A": around(13, 8, 0), "B": around(10, 8, 1)}
    assert decide(tmp_path / "2", what, far).verdict == "contradicted"
    wide = {"A": around(10, 8, 0, 4.0), "B": around(10, 8, 1, 4.0)}
    found = decide(tmp_path / "3", what, wide)
    assert found.verdict == "undecided" and "counts as no difference" in found.reason
    few = decide(tmp_path / "4", what, {"A": [1.0] * 5, "B": [1.0] * 5})
    assert few.verdict == "undecided" and "5 seeds: too few" in few.reason


def test_one_measure_of_the_same_runs_below_another(tmp_path: Path) -> None:
    """By seed, whatever `eval.norms` the grid has: the claim says both measures."""
    what = claim("measures", these=["A"], metric="standing:fd_lab", x="copied:fd_lab")
    grid = make_grid({"A": ROWS["A"]}, ReportSpec(), seeds=range(6))
    for better, word in ((True, "supported"), (False, "contradicted")):
        for spec in grid.runs:
            values = {"standing:fd_lab": 1.0 + spec.config.train.seed}
            values["copied:fd_lab"] = values["standing:fd_lab"] + (1 if better else -1) * 0.5
            write_record(tmp_path / word, spec, make_record(spec, {4000: values}))
        check(what, grid)
        for norms in ("standing", "copied"):
            runs = [replace(run, eval=replace(run.eval, norms=norms)) for run in grid.runs]
            asked = replace(grid, runs=tuple(runs), eval=replace(grid.eval, norms=norms))
            found = examine(what, asked, tmp_path / word)
            assert (found.verdict, found.n) == (word, 6), found


@pytest.mark.parametrize(
    ("share", "word"), [("12.0,9.7,14.4", "supported"), ("20.0,17.0,23.0", "undecided"),
                        ("40.0,36.0,44.0", "contradicted")],
)  # fmt: skip
def test_people_decide_without_a_run(
    share: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the published file, with other numbers for the projected GAN on the faces."""
    text = (paths.PAPER / "human_realism.csv").read_text()
    old = "FFHQ,256,Projected GAN,25,12.0,9.7,14.4"
    assert text.count(old) == 1
    for name in ("human_realism", "table3"):
        (tmp_path / f"{name}.csv").write_text((paths.PAPER / f"{name}.csv").read_text())
    new = f"FFHQ,256,Projected GAN,25,{share}"
    (tmp_path / "human_realism.csv").write_text(text.replace(old, new))
    monkeypatch.setattr("bench.analysis.paper_numbers.PAPER", tmp_path)
    paper_numbers.read.cache_clear()
    try:
        what = claim("people", these=["Projected GAN"], than=["StyleGAN2-ADA"])
        found = examine(what, make_grid({"A": ROWS["A"]}, ReportSpec()), tmp_path)
    finally:
        paper_numbers.read.cache_clear()
    assert (found.verdict, found.counted) == (word, "1 data set")
    assert "at FID 3.39, 21.5 % [18.6, 25] at FID 7.32" in found.effect


def test_a_report_shows_what_people_took_for_real(tmp_path: Path) -> None:
    grid = make_grid({"A": ROWS["A"]}, ReportSpec(people=True, columns=("fd_lab",)))
    write(tmp_path, grid, {"A": [1.0]})
    shown = tables_of(Facts.read(grid, tmp_path))["people"]
    lines = to_csv(shown).splitlines()
    assert len(lines) == 1 + 17
    assert any(
        line.startswith("FFHQ,finished,,Projected GAN,12,9.7 to 14.4,25,3.39") for line in lines
    )
    bedroom = [line for line in lines if line.startswith("LSUN-Bedroom")]
    assert "Projected GAN,14.2" in bedroom[-1]  # the last of eight
    assert grids.load("sota").report.people and grids.load("sota", "paper").report.people


# A class of networks.


def test_rows_are_dealt_to_groups_by_chance(tmp_path: Path) -> None:
    what = claim("groups", these=["A", "B", "C", "D"], than=["E", "F", "G", "H"])
    apart = {name: [1.0 + 0.01 * i + (i >= 4)] for i, name in enumerate(NAMES)}
    found = decide(tmp_path / "1", what, apart)
    assert (found.verdict, found.n, found.unit) == ("supported", 8, "rows")
    assert found.p == pytest.approx(2 / 70)  # of 70 deals, this one and its mirror
    mixed = {name: [1.0 + (i % 2)] for i, name in enumerate(NAMES)}
    assert decide(tmp_path / "2", what, mixed).verdict == "undecided"
    small = claim("groups", these=["A", "B"], than=["C", "D"])
    found = decide(tmp_path / "3", small, {"A": [1], "B": [1], "C": [9], "D": [9]})
    assert found.verdict == "undecided" and found.reason.startswith("4 rows can never decide it")


# The best of a grid.


def test_the_best_of_a_grid(tmp_path: Path) -> None:
    what = claim("best", these=["A"])
    best = {name: [1.0 + i] * 6 for i, name in enumerate(NAMES)}
    found = decide(tmp_path / "1", what, best)
    assert found.verdict == "supported" and found.effect.startswith("beats 7 of 7 rivals; FD-lab")
    assert found.p == pytest.approx(2 / 2**6)
    few = {name: values[:5] for name, values in best.items()}
    found = decide(tmp_path / "2", what, few)
    assert found.verdict == "undecided" and found.leans
    assert found.reason.startswith("5 seeds: it can never reject; it needs 6")
    beaten = {name: around(1 if name == "B" else 3, 6, i) for i, name in enumerate(NAMES)}
    found = decide(tmp_path / "3", what, beaten)
    assert found.verdict == "contradicted" and "against B" in found.effect


def test_two_first_places_do_not_make_a_row_the_best(tmp_path: Path) -> None:
    """Among eight rows that are alike, chance alone gives one of them two places of six."""
    what = claim("best", these=["A"])
    alike = {name: around(1, 6, i) for i, name in enumerate(NAMES)}
    for seed in (0, 1):
        alike["A"][seed] = 0.1
    found = decide(tmp_path / "1", what, alike)
    assert found.verdict == "undecided" and found.reason.startswith("not told apart from ")
    # One rival that is as good leaves it open, however far the others are behind.
    one = {name: around(9, 6, i) for i, name in enumerate(NAMES)} | {
        "A": around(1, 6, 0), "B": around(1, 6, 1),
    }  # fmt: skip
    found = decide(tmp_path / "2", what, one)
    assert found.verdict == "undecided" and found.effect.startswith("beats 6 of 7 rivals; ")
    assert found.reason.startswith("not told apart from B; so far") and "against B" in found.effect


# Pretrained against random, row by row.


def axis_finding(tmp_path: Path, gain: Sequence[float]) -> Finding:
    names = NAMES[: len(gain)]
    axes = {"backbone.weights": ("pretrained", "random")}
    grid = make_grid({name: ROWS[name] for name in names}, ReportSpec(), axes=axes)
    for spec in grid.runs:
        i = NAMES.index(spec.row)
        value = 10.0 + i - (gain[i] if spec.axes["backbone.weights"] == "pretrained" else 0)
        write_record(tmp_path, spec, make_record(spec, {4000: {"fd_lab": value}}))
    what = claim("axis", axis="backbone.weights", these=["pretrained"], than=["random"])
    check(what, grid)
    return examine(what, grid, tmp_path)


def test_rows_are_paired_across_an_axis(tmp_path: Path) -> None:
    found = axis_finding(tmp_path / "1", [1.0, 2.0, 1.5, 0.5, 3.0, 1.0])
    assert (found.verdict, found.n, found.unit) == ("supported", 6, "rows")
    assert found.p == pytest.approx(2 / 2**6) and len(found.evidence) == 12
    assert axis_finding(tmp_path / "2", [-1.0] * 6).verdict == "contradicted"
    assert axis_finding(tmp_path / "3", [1.0, -1.0, 1.0, -1.0, 0.5, -0.4]).verdict == "undecided"
    assert axis_finding(tmp_path / "4", [5.0] * 4).verdict == "undecided"


# Correlation.


def correlation(
    tmp_path: Path, xs: Sequence[float], ys: Sequence[float], expects: str = "none"
) -> Finding:
    names = [f"row {i}" for i in range(len(xs))]
    rows = {name: {"train.ema_kimg": 1.0 + i} for i, name in enumerate(names)}
    grid = make_grid(rows, ReportSpec())
    for spec, x, y in zip(grid.runs, xs, ys, strict=True):
        record = make_record(spec, {4000: {"fd_lab": y}})
        record["backbone"]["accuracy"] = x
        write_record(tmp_path, spec, record)
    within = {"within": 0.5} if expects == "none" else {}
    what = claim("correlation", these=names, x="accuracy", expects=expects, **within)
    check(what, grid)
    return examine(what, grid, tmp_path)


def test_a_correlation_that_should_not_be(tmp_path: Path) -> None:
    rising = [float(i) for i in range(9)]
    found = correlation(tmp_path / "1", rising, rising)
    assert found.verdict == "contradicted" and "more accuracy goes with worse" in found.effect
    found = correlation(tmp_path / "2", rising, [4, 8, 0, 6, 3, 7, 1, 5, 2])
    assert found.verdict == "undecided" and found.reason == (
        "9 rows can never support it: even of no correlation at all the interval is ±0.66, and the "
        "bound is ±0.5; it needs 16"
    )
    some = random.Random(1).sample(range(16), 16)
    found = correlation(tmp_path / "16", range(16), some)
    assert found.verdict == "undecided" and "is not ruled out" in found.reason
    many = list(range(60))
    shuffled = random.Random(3).sample(many, 60)
    assert correlation(tmp_path / "3", many, shuffled).verdict == "supported"
    assert correlation(tmp_path / "4", rising[:3], rising[:3]).verdict == "undecided"


def test_a_correlation_with_a_sign(tmp_path: Path) -> None:
    rising = [float(i) for i in range(7)]
    assert correlation(tmp_path / "1", rising, rising, "positive").verdict == "supported"
    assert correlation(tmp_path / "2", rising, rising, "negative").verdict == "contradicted"
    found = correlation(tmp_path / "3", rising, [-y for y in rising], "negative")
    assert found.verdict == "supported" and found.p == pytest.approx(2 / 5040)  # of 7! orders
    found = correlation(tmp_path / "4", rising[:4], rising[:4], "positive")
    assert found.verdict == "undecided" and found.leans  # 2 of 24 orders are as far from 0
    assert found.reason.startswith("4 rows can never decide it")


# Images to the baseline's best.


def test_sooner(tmp_path: Path) -> None:
    what = claim("sooner", these=["A"], than=["B"])
    # Images -> value, with a noise that the curves themselves tell.
    at = [round(1000 * 1.5**i) for i in range(10)]

    def falling(shift: float) -> list[dict[int, float]]:
        noise = random.Random(round(shift))
        curve = {n: 1 + 3e4 / (n * shift) for n in at}
        return [{n: v * noise.gauss(1, 0.01) for n, v in curve.items()} for _ in range(6)]

    slow, quick = falling(1.0), falling(8.0)

    def finding(folder: str, ours: Any, theirs: Any, n: int) -> Finding:
        curves = {"A": ours, "B": theirs}
        grid = make_grid({name: ROWS[name] for name in curves}, ReportSpec(), seeds=range(n))
        for spec in grid.runs:
            found = curves[spec.row][spec.config.train.seed]
            curve = {k: {"fd_lab": v} for k, v in found.items()}
            write_record(tmp_path / folder, spec, make_record(spec, curve))
        check(what, grid)
        return examine(what, grid, tmp_path / folder)

    found = finding("1", quick, slow, 6)
    assert found.verdict == "supported" and "sooner in 6, later in 0 of 6" in found.effect
    factor = float(found.effect.split()[0])
    assert 4 < factor < 16  # the curves are 8 apart, on steps of 1.5
    assert "surely reached" in found.effect
    found = finding("2", slow, quick, 6)
    assert found.verdict == "contradicted" and found.effect.startswith("not reached")
    assert finding("3", quick, slow, 5).verdict == "undecided"
    # A thousand images take 10 s in either, so the factor is the same by time.
    what = replace(what, x="train_s")
    found = finding("1", quick, slow, 6)
    assert float(found.effect.split()[0]) == factor and "less training time" in found.effect
    what = replace(what, x=None)
    few = finding("4", [{1000: 2.0, 4000: 1.0}] * 6, [{1000: 9.0, 4000: 3.0}] * 6, 6)
    assert few.verdict == "supported" and "first snapshot below" in few.effect


# What is not there, and what is flagged.


def test_a_claim_whose_rows_are_missing_is_not_run(tmp_path: Path) -> None:
    values: dict[str, list[float]] = {"A": [1.0] * 6, "B": []}
    found = decide(tmp_path, BELOW, values)
    assert found.verdict == "not run"
    assert found.reason.startswith("B: no finished run") and "grid=made" in found.reason
    assert found.evidence[0].startswith("FD-lab of A: 1")


def test_leakage_is_told_with_the_evidence(tmp_path: Path) -> None:
    grid = make_grid({"A": ROWS["A"], "B": ROWS["B"]}, ReportSpec(), scale="paper")
    for spec in grid.runs:
        write_record(tmp_path, spec, make_record(spec, {4000: {"fid": 1.0}}))
    what = replace(BELOW, metric="fid")
    found = examine(what, grid, tmp_path)
    assert "ImageNet-1k" in found.flags[0]
    assert "flagged: leakage" in to_text(what, found)


def test_the_text_has_it_all(tmp_path: Path) -> None:
    found = decide(tmp_path, BELOW, {"A": [1.0] * 6, "B": [2.0] * 6})
    test = "n = 6 seeds; p = 0.031 (exact sign-flip test)"
    assert to_text(BELOW, found).splitlines() == [
        "SUPPORTED     c: It is so. (Table 0)",
        f"    FD-lab -1 (-50%) [-1, -1], as claimed in 6 of 6 seeds; {test}",
        "    FD-lab of A: 1 (n=6)",
        "    FD-lab of B: 2 (n=6)",
    ]


# The file.


@functools.cache
def loaded(grid: str, scale: str) -> Grid:
    return grids.load(grid, scale)


@pytest.mark.parametrize("scale", ["lab", "paper", "photo"])
def test_every_claim_that_ships_is_whole(scale: str) -> None:
    for one in grids.load_claims(scale):
        check(one, loaded(one.grid, scale))
        assert one.says.endswith(".") and one.source


def test_the_findings_of_the_plan_are_there() -> None:
    ids = {one.id for one in grids.load_claims()}
    assert ids >= {
        "shallow-beats-deep", "full-projection-best", "perceptual-worse", "efficientnets-best",
        "accuracy-does-not-predict", "pretrained-beats-random", "fewer-images", "less-data",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("check: best", "chek: best", "chek"),
        ("check: best", "check: bets", "'full-projection-best'.*Did you mean 'best'"),
        ('["CCM + CSM, L1-L4"]', '["CCM + CSM, L1-L5"]', r"row of grid projections 'CCM \+ CSM"),
        ("check: best", "check: best\n    than: [x]", "check best does not use than"),
        ("expects: none", "expects: nothing", "value of expects 'nothing'"),
        ("within: 0.5", "within: 2", "give within, between 0 and 1"),
        ("    within: 0.5\n", "", "give within, between 0 and 1"),
        ("x: accuracy", "x: acuracy", "Did you mean 'accuracy'"),
        ("axis: backbone.weights", "axis: backbone.name", "axis 'backbone.name'"),
        ("these: [pretrained]", "these: [pretraned]", "value of grid pretraining 'pretraned'"),
        ("these: [pretrained]", "these: [pretrained, random]", "these takes one entry"),
        ("grid: subsets", "grid: subset", "grid 'subset'"),
        ("id: ccm-helps", "id: shallow-beats-deep", "is there twice"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = paths.CLAIMS.read_text()
    assert old in text
    path = tmp_path / "claims.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        for one in grids.load_claims("lab", path):
            check(one, loaded(one.grid, "lab"))
    assert "\n" not in str(caught.value)


def test_a_check_needs_its_fields() -> None:
    grid = make_grid(ROWS, ReportSpec())
    for kind, fields, message in (
        ("below", {"these": ["A"]}, "check below needs than"),
        ("best", {"these": ["A", "B"]}, "these takes one entry"),
        ("groups", {"these": ["A"], "than": ["B", "C"]}, "two rows or more"),
        ("below", {"these": ["A"], "than": ["B"], "metric": "fdlab"}, "metric 'fdlab'"),
        ("sooner", {"these": ["A"], "than": ["B"], "x": "accuracy"}, "with x: train_s"),
        ("alike", {"these": ["A"], "than": ["B"]}, "check alike needs within"),
        ("alike", {"these": ["A"], "than": ["B"], "within": 2}, "give within, between 0 and 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(claim(kind, **fields), grid)
    assert {"accuracy"} <= FIELDS.keys() and len(CHECKS) == 9


# The command.


def test_the_command_prints_every_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = grids.load("subsets", seeds=range(6))
    for spec in grid.runs:
        final = 1.0 if spec.row == "Projected GAN" else 5.0
        write_record(tmp_path, spec, make_record(spec, {6000: {"fd_lab": final}}))
    assert seeds_found(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert main.main(["do=claims", f"runs_dir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    known = grids.load_claims()
    about = sum(claim.grid == "subsets" for claim in known)
    without = sum(claim.check == "people" for claim in known)  # needs no run
    assert "SUPPORTED     less-data: " in said and "n = 6 seeds" in said
    assert "NOT RUN       fewer-images: " in said
    assert said.splitlines()[-1] == (
        f"scale lab, each claim tested alone at 5%: {about + without} supported, 0 contradicted, "
        f"0 undecided, {len(known) - about - without} not run"
    )
    assert main.main(["do=claims", "grid=subsets", f"runs_dir={tmp_path}", "seeds=[0,1]"]) == 0
    said = capsys.readouterr().out
    assert "2 seeds: it can never reject; it needs 6" in said and f"{about} undecided" in said
    assert main.main(["do=claims", "grid=smoke", f"runs_dir={tmp_path}"]) == 2
    assert "grid with claims 'smoke'" in capsys.readouterr().err
