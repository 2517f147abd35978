"""One vocabulary for each kind of verdict, and a page that says when each word holds."""

from __future__ import annotations

from typing import get_args

import pytest

from bench.analysis import verdicts
from bench.config.paths import ROOT

PAGE = (ROOT / "docs" / "verdicts.md").read_text() + (ROOT / "docs" / "statistics.md").read_text()


@pytest.mark.parametrize("kind", ["ClaimWord", "NumberWord"])
def test_the_page_has_every_word(kind: str) -> None:
    for word in get_args(getattr(verdicts, kind)):
        assert word in PAGE, word


def test_lists_of_words_are_the_vocabularies() -> None:
    assert get_args(verdicts.ClaimWord) == verdicts.CLAIM_WORDS
    assert set(verdicts.ON_VALUES) < set(get_args(verdicts.NumberWord))
