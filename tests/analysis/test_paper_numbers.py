"""The paper's numbers find their rows; rank correlations agree with hand and with SciPy."""

from __future__ import annotations

from typing import Any

import pytest
from made_records import make_grid

from bench.analysis.paper_numbers import PaperValue, paper_row
from bench.config.spec import ReportSpec, RunSpec
from projgan.errors import ConfigError


def spec(label: str = "A row", axes: dict[str, Any] | None = None, **settings: Any) -> RunSpec:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return make_grid({label: dotted}, ReportSpec(), axes=axes).runs[0]


def test_table2_by_label_and_by_backbone_name() -> None:
    by_label = paper_row("table2", spec("EfficientNet-lite1", backbone__name="other"))
    assert by_label["paper_fid"].value == 1.65
    assert by_label["paper_params_m"].value == 3.72
    by_name = paper_row("table2", spec("second to last", backbone__name="r50_clip"))
    assert by_name["paper_fid"].value == 3.80


def test_table2_keeps_confidence_and_unknown_numbers() -> None:
    clip = paper_row("table2", spec("R50-CLIP", backbone__name="r50_clip"))
    assert clip["paper_top1"] == PaperValue(None, "not applicable")
    lite4 = paper_row("table2", spec("EfficientNet-lite4", backbone__name="efficientnet_lite4"))
    assert "memory" in lite4["paper_fid"].note
    assert lite4["paper_params_m"].note == ""  # read directly


def test_table2_has_no_line_for_random_weights_or_other_transformers() -> None:
    assert paper_row("table2", spec("ViT", backbone__name="vit", backbone__weights="random")) == {}
    assert paper_row("table2", spec("ViT-Base", backbone__name="vit_base")) == {}


@pytest.mark.parametrize(
    ("projection", "layers", "kind", "rel_fid"),
    [
        ("none", (1,), "projected", 0.66),
        ("none", (2, 3, 4), "projected", 1.99),
        ("none", (1, 2, 3, 4), "perceptual", 2.73),
        ("ccm", (1, 2), "projected", 0.48),
        ("ccm_csm", (1, 2, 3, 4), "projected", 0.24),
        ("ccm_csm", (1, 2, 3, 4), "perceptual", 2.13),
    ],
)
def test_table1_by_projection_layers_and_discriminator(
    projection: str, layers: tuple[int, ...], kind: str, rel_fid: float
) -> None:
    row = paper_row(
        "table1",
        spec(projection__kind=projection, discriminator__layers=layers, discriminator__kind=kind),
    )
    assert row["paper_rel_fid"].value == rel_fid
    assert len(row) == 5


def test_table1_has_the_baseline_by_definition_and_nothing_that_it_lacks() -> None:
    rgb = paper_row("table1", spec(discriminator__kind="rgb"))
    assert {v.value for v in rgb.values()} == {1.0}
    assert paper_row("table1", spec(discriminator__layers=(1, 4))) == {}


def test_figure4_right_for_subsets_left_otherwise() -> None:
    settings = {"discriminator__kind": "projected", "data__images": 70000}
    right = [
        paper_row("figure4", spec(axes={"data.subset": (n,)}, **settings))
        for n in (1000, 10000, None, 5000)
    ]
    assert [row["paper_fid"].value for row in right if row] == [7.19, 1.31, 0.90]
    assert paper_row("figure4", spec(**settings))["paper_fid"].value == 1.58
    assert "digitised" in right[0]["paper_fid"].note
    assert paper_row("figure4", spec(discriminator__kind="rgb")) == {}


def test_a_row_may_name_its_line() -> None:
    row = paper_row("table2", spec("mine"), {"network": "ResNet18"})
    assert row["paper_fid"].value == 4.16
    with pytest.raises(ConfigError, match=r"'mine'.* picks 0 lines of .*table2\.csv"):
        paper_row("table2", spec("mine"), {"network": "ResNet19"})


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="table1"):
        paper_row("table9", spec())
