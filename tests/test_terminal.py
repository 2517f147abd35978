"""The terminal: any encoding, no traceback, files before words, and nothing of Python's own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from made_records import make_record, write_record
from PIL import Image

from bench.analysis.facts import Facts
from bench.cli.main import main
from bench.config import grid as grids
from bench.config import terminal
from bench.report.build import write_report

ROOT = Path(__file__).parents[1]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(ROOT / "run_bench.py"), *words]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, check=False)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A grid file with records, as words of a command."""
    folder = tmp_path_factory.mktemp("grid")
    rows = [{"label": x, "set": {"optim.lr_g": 1e-4 * (i + 1)}}
            for i, x in enumerate(["Größe 日本", "plain"])]  # fmt: skip
    said = {
        "name": "words", "about": "rows – with signs", "rows": rows, "seeds": [0, 1],
        "eval": {"metrics": ["fd"]}, "report": {"rank_by": "fd", "columns": ["fd", "kid"]},
    }  # fmt: skip
    (folder / "g.yaml").write_text(yaml.safe_dump(said, allow_unicode=True), encoding="utf-8")
    for i, spec in enumerate(grids.load(str(folder / "g.yaml")).runs):
        curve = {n: {"fd_lab": 4000 * (i + 1) / n} for n in (1024, 4000)}
        write_record(folder / "runs", spec, make_record(spec, curve))
    return [f"grid={folder / 'g.yaml'}", f"runs_dir={folder / 'runs'}"]


ENCODINGS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "the locale's": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_terminal_that_is_not_utf_8(words: list[str], tmp_path: Path, encoding: str) -> None:
    results = tmp_path / "results"
    done = run(*words, "do=report", f"results_dir={results}", **ENCODINGS[encoding])
    assert (done.returncode, done.stderr) == (0, b"")
    assert (results / "words" / "table.md").read_text(encoding="utf-8").count("Größe 日本") >= 1
    text = done.stdout.decode("latin-1" if encoding == "latin-1" else "ascii")
    plain = "Größe" if encoding == "latin-1" else "Grosse"
    assert f"{plain} \\u65e5\\u672c" in text and "Rows - with signs" in text
    assert run(*words, "do=plan", **ENCODINGS[encoding]).returncode == 0
    refused = run("grid=größe", **ENCODINGS[encoding])
    assert refused.returncode == 2 and b"Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("text", "plain"),
    [("2.35 ± 0.1ᵃ –", "2.35 +- 0.1(a) -"), ("é ü", "e u"), ("日", r"\u65e5"),
     ("─── ×1000 …", "--- x1000 ..."), ("\udcff.png", r"\udcff.png"), ("ρ ≤ 1²", "rho <= 1(2)")],
)  # fmt: skip
def test_what_a_terminal_lacks_becomes_plain_letters(text: str, plain: str) -> None:
    code = (
        "from bench.config import terminal; import sys; terminal.prepare(); "
        "print(sys.argv[1].encode().decode('unicode_escape').encode('utf-16', 'surrogatepass')"
        ".decode('utf-16', 'surrogatepass'))"
    )
    asked = text.encode("ascii", "backslashreplace").decode()
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", code, asked]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    assert (done.stdout.decode().rstrip("\n"), done.stderr) == (plain, b"")


def test_the_files_are_there_before_anything_is_printed(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that has left, as `| head -0`, or a full terminal costs no file."""
    runs = Path(words[1].partition("=")[2])
    grid = grids.load(words[0].partition("=")[2])

    def gone(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        write_report(Facts.read(grid, runs), tmp_path, gone)
    folder = tmp_path / "words"
    assert (folder / "table.md").is_file() and (folder / "manifest.json").is_file()
    for side in ("real", "fake"):
        (tmp_path / side).mkdir()
        for i in range(4):
            image = Image.new("RGB", (32, 32), (60 * i, 10, 10))
            image.save(tmp_path / side / f"{i}.png")
    monkeypatch.setattr("bench.cli.main._echo", gone)
    asked = [f"{side}={tmp_path / side}" for side in ("real", "fake")]
    asked += ["metrics=[swd]", f"data_dir={tmp_path / 'data'}", f"out={tmp_path / 'out.json'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", io.StringIO())  # which that closes
        assert main(["do=score", *asked]) == 0
    assert (tmp_path / "out.json").is_file()


@pytest.mark.parametrize("verb", ["score", "prepare"])
def test_an_error_names_the_file(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a zip's members, which are read in memory."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.png", b"no image")
    given = [f"real={tmp_path / 'a.zip'}", f"fake={tmp_path / 'a.zip'}", "metrics=[swd]"]
    if verb == "prepare":
        given = ["data=mine", f"source={tmp_path / 'a.zip'}", "data.resolution=32"]
    assert main([f"do={verb}", *given, f"data_dir={tmp_path / 'data'}"]) == 2
    said = capsys.readouterr().err
    assert "0.png" in said and "a.zip" in said and "BytesIO" not in said and " at 0x" not in said
    assert said.count("\n") == 1


def test_pythons_own_warnings_stay_away(tmp_path: Path) -> None:
    """Pillow warns of an image of many pixels, Python of much else; the user is told neither."""
    for side in ("real", "fake"):
        (tmp_path / side).mkdir()
        for i in range(2):  # a palette whose transparency is given in bytes: Pillow warns
            image = Image.new("P", (32, 32), i)
            image.putpalette([i] * 768)
            image.save(tmp_path / side / f"{i}.png", transparency=bytes(range(256)))
    code = (
        "import sys, warnings, logging; import bench.cli.score; from bench.cli import main\n"
        "plain = bench.cli.score.measure\n"
        "def measure(*given):\n"
        "    warnings.warn('of Python'); logging.getLogger('library').warning('of a library')\n"
        "    return plain(*given)\n"
        "bench.cli.score.measure = measure\n"
        "raise SystemExit(main.main())"
    )
    asked = [f"{side}={tmp_path / side}" for side in ("real", "fake")]
    asked += ["do=score", "metrics=[swd]", f"data_dir={tmp_path / 'data'}"]
    command = [sys.executable, "-c", code, *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    shown = subprocess.run(
        [sys.executable, "-W", "default", *command[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "of Python" in shown.stderr  # whoever asks for them has them


def test_wide_signs_take_two_columns() -> None:
    texts = {"ab": 2, "日本": 4, "é": 1, "e\u0301": 1, "😀": 2}
    assert {text: terminal.width(text) for text in texts} == texts
    assert terminal.aligned([["日本", "x"], ["ab", "y"]]) == ["日本  x", "ab    y"]
