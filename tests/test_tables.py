"""One table, four forms: what is written is compared with the whole text that is expected."""

from __future__ import annotations

import csv
import io

from bench.tables import (
    Column,
    Entry,
    Row,
    Table,
    decimals,
    to_csv,
    to_latex,
    to_markdown,
    to_text,
)

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
Lite|1 & 3.00 $\pm$ 1.41 & 812 & 2.35\textsuperscript{a} \\
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
Broken     failed: loss is no…  4.00ᵃ
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
