"""The page on reliability lists what is tried, and what it names exists."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from faults import BEGIN, END, FAULTS, PAGE, row

TESTS = Path(__file__).parent


@pytest.mark.parametrize("test", [test for fault in FAULTS for test in fault.tests])
def test_every_named_test_exists(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert not name or name in names


def test_the_page_has_a_row_for_every_fault_and_none_failed() -> None:
    written = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in written.splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == [f.fault for f in FAULTS]
    assert not [line for line in rows if " failed" in line.rsplit(" | ", 1)[1]]


def test_a_fault_that_did_not_hold_is_shown() -> None:
    test = FAULTS[0].tests[0]
    assert "1 of 3 failed" in row(FAULTS[0], {test: Counter(passed=2, failed=1)})
    assert "not tried here" in row(FAULTS[0], {})
