"""Identity of runs: what changes it, what does not, and that nobody changes a default unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.config.spec import RECIPE_VERSION, EvalSpec, RunSpec, changed, flatten
from projgan.config import Config, Discriminator, Optim, Train
from projgan.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "defaults.json"


def spec(config: Config | None = None, evaluation: EvalSpec | None = None) -> RunSpec:
    return RunSpec("g", "Row", {}, "lab", config or Config(), evaluation or EvalSpec())


def with_train(**changes: object) -> Config:
    return replace(Config(), train=Train(**changes))  # type: ignore[arg-type]


def test_identity_contract() -> None:
    assert spec(evaluation=EvalSpec(metrics=("fid",), fake=7)).run_id == spec().run_id
    assert spec(with_train(batch=32)).run_id != spec().run_id
    assert spec(with_train(seed=1)).run_id != spec().run_id


def test_label_grid_and_scale_are_not_identity() -> None:
    other = replace(spec(), grid="h", row="Other", axes={"train.batch": 64}, scale="paper")
    assert other.run_id == spec().run_id


def test_a_value_given_as_its_default_is_the_default() -> None:
    assert spec(with_train(batch=Train().batch)).run_id == spec(Config()).run_id
    assert changed(Config()) == {}


def test_whole_and_decimal_numbers_are_one_identity() -> None:
    assert spec(with_train(total_kimg=6)).run_id == spec(with_train(total_kimg=6.0)).run_id


def test_defaults_are_those_of_the_recipe() -> None:
    golden = json.loads(GOLDEN.read_text())
    now = flatten(Config())
    moved = {k: now.get(k) for k, v in golden["defaults"].items() if now.get(k, object()) != v}
    assert not moved or golden["recipe_version"] != RECIPE_VERSION, (
        f"defaults changed: {moved}; raise RECIPE_VERSION and write {GOLDEN.name} anew"
    )
    assert golden == {"recipe_version": RECIPE_VERSION, "defaults": now}, (
        f"write {GOLDEN.name} anew: python tests/config/test_spec.py"
    )


def test_a_run_id_stays_what_it_is() -> None:
    config = replace(with_train(total_kimg=6, seed=3), optim=Optim(lr_g=1e-3))
    assert spec(config).run_id == "c947f2246002"


def test_json_and_back() -> None:
    config = replace(with_train(seed=4), discriminator=Discriminator(layers=(1, 3)))
    before = RunSpec("g", "Row", {"data.subset": None}, "lab", config, EvalSpec(("kid",), 2.0))
    after = RunSpec.from_json(json.loads(json.dumps(before.to_json())))
    assert after == before and after.run_id == before.run_id


def test_json_without_a_newer_field_has_its_default() -> None:
    value = spec(with_train(seed=5)).to_json()
    del value["config"]["augment"], value["config"]["train"]["loss"]
    assert RunSpec.from_json(value) == spec(with_train(seed=5))


def test_snapshots_are_whole_batches_and_end_with_the_budget() -> None:
    evaluation = EvalSpec(every_kimg=2, also_at_kimg=(1, 50))
    assert evaluation.snapshot_at(total_kimg=5, batch=32) == (1024, 2016, 4000, 5024)
    assert evaluation.snapshot_at(total_kimg=0.001, batch=32) == (32,)


def test_every_kimg_counts_without_rounding_loss() -> None:
    assert len(EvalSpec(every_kimg=0.1).snapshot_at(total_kimg=1, batch=10)) == 10


@pytest.mark.parametrize(
    "bad", [{"every_kimg": 0}, {"fake": 1}, {"real": 0}, {"also_at_kimg": (-1,)}]
)
def test_evaluation_that_cannot_be_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        EvalSpec(**bad)  # type: ignore[arg-type]


def write_golden() -> None:
    value = {"recipe_version": RECIPE_VERSION, "defaults": flatten(Config())}
    GOLDEN.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
