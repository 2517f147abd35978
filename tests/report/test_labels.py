"""Labels with signs that matplotlib, LaTeX, Markdown or HTML read as commands come out as they are.

A grid file with such labels is reported through the command line, and each form is read back as its
reader would read it.
"""

from __future__ import annotations

import csv
import html
import html.parser
import io
import re
from pathlib import Path

import pytest
import yaml
from made_records import make_record, write_record
from markdown_it import MarkdownIt
from PIL import Image

from bench.cli.main import main
from bench.config import grid as grids

LABELS = [
    "a$b$c", r"$\frac$", r"\$\alpha\$", "cost $5", "a_b", "_hidden", "50 % & #1", "&lt;&amp;",
    "\"say\" 'hi'", r"back\slash", "a|b", "<b>bold</b>", "{x} ~ ~~y~~ ^z", "[link](there)",
    "`code`", "* star", "1. one", ":smile:", "a--b", "Größe é ∞ ≤", "日本", "😀", "x² α",
    "=1+1", "a · b=c",
]  # fmt: skip


def report(folder: Path, labels: list[str]) -> Path:
    """The folder of a report, written by do=report, of a grid file with these rows."""
    rows = [{"label": x, "set": {"optim.lr_g": 1e-4 * (i + 1)}} for i, x in enumerate(labels)]
    file = folder / "labels.yaml"
    said = {
        "name": "labels", "about": "rows with signs", "rows": rows, "seeds": [0],
        "eval": {"metrics": ["fd"]}, "report": {"rank_by": "fd", "columns": ["fd"]},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(said, allow_unicode=True), encoding="utf-8")
    for i, spec in enumerate(grids.load(str(file)).runs):
        curve = {n: {"fd_lab": 4000 * (i + 1) / n} for n in (1024, 4000)}
        samples = write_record(folder / "runs", spec, make_record(spec, curve)).parent / "samples"
        samples.mkdir()
        side = spec.config.data.resolution
        Image.new("RGB", (2 * side, side), (10 * i, 0, 0)).save(samples / "000004000.png")
    words = [f"grid={file}", f"runs_dir={folder / 'runs'}", f"results_dir={folder / 'results'}"]
    assert main([*words, "do=report"]) == 0
    assert main([*words, "do=verify"]) == 0
    return folder / "results" / "labels"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(tmp_path_factory.mktemp("labels"), LABELS)


def test_the_figure_writes_the_words_and_no_formula(made: Path) -> None:
    svg = (made / "curves" / "fd_lab.svg").read_text(encoding="utf-8")
    # matplotlib puts the words of every text beside its outlines, as a comment.
    texts = [html.unescape(text) for text in re.findall(r"<!-- (.*?) -->", svg, re.DOTALL)]
    shown = {text.rsplit("  ", 1)[0].replace("- -", "--") for text in texts}
    assert set(LABELS) - shown <= {"日本"}  # which few machines have a font for
    assert {"日本", r"\u65e5\u672c"} & shown
    assert "Oblique" not in svg and "STIX" not in svg and "Cmmi" not in svg  # fonts of formulas


def test_markdown_reads_back(made: Path) -> None:
    text = (made / "table.md").read_text(encoding="utf-8")
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    assert _first_cells(page, "td")[::2] == LABELS
    assert not re.search(r"(?<!\\)\$", text)  # GitHub's formulas


def test_the_page_reads_back(made: Path) -> None:
    page = (made / "index.html").read_text(encoding="utf-8")
    table = page[page.index('id="t-table"') :]
    rows = _first_cells(table[: table.index("</table>")], "th")
    assert rows[-len(LABELS) :] == LABELS


def test_csv_reads_back(made: Path) -> None:
    text = (made / "table.csv").read_text(encoding="utf-8")
    assert [row["label"] for row in csv.DictReader(io.StringIO(text))] == LABELS


def test_latex_reads_back(made: Path) -> None:
    text = (made / "table.tex").read_text(encoding="utf-8")
    assert text.startswith("% 日本😀: compile with XeLaTeX or LuaLaTeX")
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:]
    assert [_read_tex(line.split(" & ")[0].strip()) for line in body] == LABELS


def test_every_row_has_its_own_sheet_of_samples(made: Path) -> None:
    sheets = [p for p in (made / "samples").iterdir() if p.name != "all.png"]
    assert len({p.read_bytes() for p in sheets}) == len(LABELS)


@pytest.mark.parametrize("label", ["two\nlines", "tab\there", "bell\x07", " blank", "blank "])
def test_a_label_is_one_line(tmp_path: Path, label: str, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "g.yaml"
    rows = [{"label": label, "set": {"backbone.name": "resnet18"}}]
    file.write_text(yaml.safe_dump({"name": "g", "about": "x", "rows": rows}))
    assert main([f"grid={file}", "do=plan"]) == 2
    said = capsys.readouterr().err
    assert repr(label) in said and "a label is one line of printable signs" in said


def _read_tex(text: str) -> str:
    """What LaTeX prints of a cell; fails where a sign would be read as a command."""
    named = {
        "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "char34": '"',
        "textbar": "|", "textasciigrave": "`", "textless": "<", "textgreater": ">",
    }  # fmt: skip
    text = re.sub(r"\\textsuperscript\{2\}", "²", text)
    signs = {"infty": "∞", "le": "≤", "cdot": "·", "alpha": "α"}
    text = re.sub(r"\$\\(infty|le|cdot|alpha)\$", lambda m: signs[m[1]], text)
    text = text.replace(r"\'e", "é")
    assert not re.search(r"(?<!\\)[$%#_^~|<>\"`]", re.sub(r"\\[$%#_&{}]", "", text)), text
    assert "--" not in text and not text.startswith(("[", "*"))
    found = re.sub(r"\\(text\w+|char34)\{\}", lambda m: "\0" + named[m[1]], text)
    found = re.sub(r"(?<!\\)[{}]", "", found)
    return re.sub(r"\\([$%#_&{}])", r"\1", found).replace("\0", "")


def _first_cells(page: str, tag: str) -> list[str]:
    """The texts of all cells of a kind, as a browser shows them."""
    found: list[str] = []

    class Reader(html.parser.HTMLParser):
        inside = False

        def handle_starttag(self, name: str, _: object) -> None:
            if name == tag:
                found.append("")
                self.inside = True

        def handle_endtag(self, name: str) -> None:
            self.inside &= name != tag

        def handle_data(self, data: str) -> None:
            if self.inside:
                found[-1] += data

    Reader().feed(page)
    return [" ".join(text.split()) for text in found]
