"""One table, four forms: what is written is compared with the whole text that is expected."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.analysis.table import Entry, Row, Table
from bench.config.columns import Column
from bench.report.tables import decimals, to_csv, to_latex, to_markdown, to_text

MEMORY = "from memory"
TABLE = Table(
    name="made",
    caption="Made & measured: 50 % of a_b.",
    columns=(
        Column("label", "row", text=True),
        Column("fd_lab", "FD-lab", spread=True),
        Column("peak_mb", "memory", "MB", decimals=0),
        Column("paper_fid", "paper FID", paper=True, decimals=2),
    ),
    rows=(
        Row((
            Entry(text="Lite|1"),
            Entry(3.0, points=(2.0, 4.0)),
            Entry(812.4, points=(812.4,)),
            Entry(2.35, notes=(MEMORY,), confidence="memory"),
        )),
        Row((Entry(text="No memory"), Entry(10.25), Entry(notes=("not recorded",)), Entry(1.6))),
        Row(
            (Entry(text="Broken"), Entry(), Entry(), Entry(4.0, notes=(MEMORY,))),
            "failed",
            "loss is not finite",
        ),
    ),
    notes=("2 of 3 runs finished.",),
    extra={"run_ids": ("r1 r2", "r3", "r4")},
)  # fmt: skip


def test_markdown() -> None:
    expected = """\
Made & measured: 50 % of a\\_b.

| row | FD-lab | memory (MB) | paper FID |
| :--- | ---: | ---: | ---: |
| Lite\\|1 | 3.00 ± 1.41 | 812 | 2.35ᵃ |
| No memory | 10.25 | –ᵇ | 1.60 |
| Broken | *failed: loss is not finite* |  | 4.00ᵃ |

ᵃ from memory\x20\x20
ᵇ not recorded\x20\x20

- 2 of 3 runs finished.
"""
    assert to_markdown(TABLE) == expected


def test_csv() -> None:
    expected = """\
label,status,reason,fd_lab,fd_lab_std,fd_lab_min,fd_lab_max,fd_lab_n,fd_lab_low,fd_lab_high,\
fd_lab_points,peak_mb,paper_fid,paper_fid_confidence,run_ids
Lite|1,finished,,3,1.4142136,2,4,2,2,4,2 4,812.4,2.35,memory,r1 r2
No memory,finished,,10.25,,,,0,,,,,1.6,,r3
Broken,failed,loss is not finite,,,,,0,,,,,4,,r4
"""
    assert to_csv(TABLE) == expected
    assert {len(row) for row in csv.reader(io.StringIO(to_csv(TABLE)))} == {15}


def test_latex() -> None:
    expected = r"""\begin{table}
\centering
\caption{Made \& measured: 50 \% of a\_b.}
\label{tab:made}
\begin{tabular}{lrrr}
\toprule
row & FD-lab & memory & paper FID \\
 &  & MB & \\
\midrule
Lite\textbar{}1 & 3.00 $\pm$ 1.41 & 812 & 2.35\textsuperscript{a} \\
No memory & 10.25 & --\textsuperscript{b} & 1.60 \\
Broken & \multicolumn{2}{l}{\emph{failed: loss is not finite}} & 4.00\textsuperscript{a} \\
\bottomrule
\end{tabular}

\smallskip
\begin{minipage}{\linewidth}\footnotesize
\textsuperscript{a}\,from memory \\
\textsuperscript{b}\,not recorded \\
2 of 3 runs finished.
\end{minipage}
\end{table}
"""
    assert to_latex(TABLE) == expected


def test_text() -> None:
    expected = """\
Made & measured: 50 % of a_b.

                        memory  paper
row             FD-lab      MB    FID
─────────────────────────────────────
Lite|1     3.00 ± 1.41    812   2.35ᵃ
No memory        10.25      –ᵇ  1.60
Broken          failed          4.00ᵃ
─────────────────────────────────────
Broken: failed: loss is not finite
ᵃ from memory
ᵇ not recorded
2 of 3 runs finished.
"""
    assert to_text(TABLE) == expected


def test_text_leaves_columns_out_by_name_and_with_their_footnotes() -> None:
    text = to_text(TABLE, width=30)
    assert "Left out to fit 30 columns: memory (see table.md)" in text
    assert "not recorded" not in text
    table_lines = text.splitlines()[:9]
    assert max(map(len, table_lines)) <= 30
    assert "paper" in table_lines[2]


def test_bold_is_in_every_form_that_has_it_and_the_footnote_is_not() -> None:
    row = Row((Entry(text="A"), Entry(2.0, notes=("x",), bold=True, compared="better", p=0.03125)))
    columns = (Column("label", "row", text=True), Column("fd_lab", "FD-lab", spread=True))
    table = Table("t", "", columns, (row, Row((Entry(text="B"), Entry(3.0)))))
    assert "| A | **2.00**ᵃ |" in to_markdown(table)
    assert r"A & \textbf{2.00}\textsuperscript{a} \\" in to_latex(table)
    lines = to_csv(table).splitlines()
    assert lines[0] == "label,status,reason,fd_lab,fd_lab_p_holm,fd_lab_compared"
    assert lines[1:] == ["A,finished,,2,0.03125,better", "B,finished,,3,,"]


def test_latex_escapes_what_tex_would_read_as_commands() -> None:
    row = Row((Entry(text=r"50% a_b #1 {x} \y ~ ^ $ < ±"),))
    text = to_latex(Table("t", "", (Column("label", "row", text=True),), (row,)))
    assert (
        r"50\% a\_b \#1 \{x\} \textbackslash{}y \textasciitilde{} \textasciicircum{} \$ "
        r"\textless{} $\pm$"
    ) in text


def test_many_footnotes_keep_distinct_marks() -> None:
    rows = tuple(Row((Entry(text=str(i), notes=(f"note {i}",)),)) for i in range(60))
    table = Table("t", "", (Column("label", "row", text=True),), rows)
    assert len(set(table.footnotes.values())) == 60


def test_decimals_give_the_median_three_digits() -> None:
    assert decimals([0.012, 0.034, 9.0]) == 4
    assert decimals([1.5, 23.4, 456.0]) == 1
    assert decimals([1234.0]) == 0
    assert decimals([0.0]) == 2 and decimals([]) == 2


CROSSED = Table(
    name="crossed",
    caption="Rows with an axis.",
    columns=(
        Column("label", "row", text=True),
        Column("fd_lab", "FD-lab"),
        Column("paper_fid", "paper FID", paper=True),
        Column("paper_kid", "paper KID", paper=True),
    ),
    rows=tuple(
        Row((Entry(text=f"{name} · weights={w}"), Entry(1.5, notes=("flag",)), Entry(2.0), Entry()))
        for name in ("Lite & 1", "ViT")
        for w in ("pretrained", "random")
    ),
)


def test_latex_names_a_row_once_and_the_paper_once() -> None:
    text = to_latex(CROSSED)
    assert r"\begin{tabular}{llrrr}" in text
    assert r"\multirow[t]{2}{*}{Lite \& 1} & weights=pretrained & 1.50\textsuperscript{a}" in text
    assert "\n & weights=random & 1.50" in text
    assert " &  &  & \\multicolumn{2}{c}{paper} \\\\\n\\cmidrule(lr){4-5}\n" in text
    assert r"row &  & FD-lab & FID & KID" in text
    rows = [line for line in text.splitlines() if "& weights=" in line]
    assert [line.replace(r"\&", "").count("&") for line in rows] == [4] * 4


def wide_table() -> Table:
    """More columns than a page holds, one of them of sentences."""
    columns = [Column("label", "row", text=True), Column("says", "says", text=True)]
    columns += [Column(f"c{i}", f"column {i}", decimals=3) for i in range(16)]
    said = Entry(text="A sentence that is far too long for the line of a table of a paper.")
    row = Row((Entry(text="one"), said, *[Entry(1234.5)] * 16))
    return Table("wide", "Wide.", tuple(columns), (row, row))


def test_latex_breaks_long_texts_and_scales_wide_tables() -> None:
    text = to_latex(wide_table())
    assert r"\begin{tabular}{l>{\raggedright\arraybackslash}p{16em}r" in text
    assert text.count(r"\resizebox") == 1 and r"\end{tabular}}" in text
    assert r"\resizebox" not in to_latex(TABLE)


def has_tex() -> bool:
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    return all(
        subprocess.run(["kpsewhich", f"{name}.sty"], capture_output=True, check=False).stdout
        for name in ("array", "booktabs", "graphicx", "multirow")
    )


@pytest.mark.skipif(not has_tex(), reason="no LaTeX with its usual packages here")
def test_latex_takes_the_tables(tmp_path: Path) -> None:
    packages = r"\usepackage{array,booktabs,graphicx,multirow}"
    head = rf"\documentclass{{article}}{packages}\begin{{document}}"
    body = "\n".join(map(to_latex, (TABLE, CROSSED, wide_table())))
    (tmp_path / "all.tex").write_text(f"{head}\n{body}\n\\end{{document}}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 1000
    assert r"Overfull \hbox" not in done.stdout  # nothing runs off the page
