"""The faster forms of a training step: each equals the plain one up to rounding."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_config import OTHERS
from small_config import SMALL as CFG
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from projgan.backbones import build_backbone
from projgan.backbones.lab import LAB_NETWORKS
from projgan.config import (
    Backbone,
    Config,
    Projection,
    Train,
)
from projgan.discriminators.projection import Projection as Mixing
from projgan.errors import ConfigError
from projgan.speed import fast
from projgan.speed.compiled import Compiling
from projgan.trainer import Trainer


def one_step(cfg: Config, switches: frozenset[str]) -> dict[str, Tensor]:
    """Losses, gradients and buffers of a step that moves no weight."""
    trainer = Trainer(cfg, torch.device("cpu"), switches=switches)
    for optimiser in (trainer.optim_g, trainer.optim_d):
        optimiser.param_groups[0]["lr"] = 0.0
    real = torch.linspace(-1, 1, 8 * 3 * 32 * 32).view(8, 3, 32, 32)
    losses = trainer.step(real, torch.arange(8))
    out = {"losses": torch.stack(losses)}
    for name, network in (("G", trainer.generator), ("D", trainer.discriminator.heads)):
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        out[f"gradients of {name}"] = torch.cat(gradients)
        buffers = {k: b for k, b in network.named_buffers() if b.is_floating_point()}
        out |= {f"{name} {key}": buffer.clone() for key, buffer in buffers.items()}
    return out


def assert_equal_up_to_rounding(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        difference = (one[name] - two[name]).norm()
        assert difference <= 2e-4 * one[name].norm() + 1e-6, name


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return one_step(CFG, fast.NONE)


@pytest.mark.parametrize("name", [*fast.SWITCHES, "all"])
def test_a_step_is_the_plain_one(name: str, plain: dict[str, Tensor]) -> None:
    switches = fast.ALL if name == "all" else frozenset([name])
    assert_equal_up_to_rounding(plain, one_step(CFG, switches))


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_too(name: str) -> None:
    cfg = OTHERS[name]
    assert_equal_up_to_rounding(one_step(cfg, fast.NONE), one_step(cfg, fast.ALL))


def test_several_steps_stay_together() -> None:
    """Adam turns the rounding of a tiny gradient into a step of full length: a few weights part."""
    ends = []
    for switches in (fast.NONE, fast.ALL):
        trainer = Trainer(CFG, torch.device("cpu"), switches=switches)
        start = torch.cat([p.detach().flatten().clone() for p in trainer.average.parameters()])
        for number in range(4):
            index = torch.arange(8 * number, 8 * number + 8)
            real = torch.linspace(-1, 1, 8 * 3 * 32 * 32).view(8, 3, 32, 32)
            trainer.step(real, index)
            trainer.update_average(8 * number + 8)
        ends.append(torch.cat([p.detach().flatten() for p in trainer.average.parameters()]))
    assert (ends[0] - ends[1]).norm() < 0.05 * (ends[0] - start).norm()


def test_one_operator_over_all_weights_moves_them_alike() -> None:
    """From the same gradients: Adam's steps and the moving average after them."""
    ends = []
    for switches in (fast.NONE, frozenset({"optimiser", "average"})):
        trainer = Trainer(CFG, torch.device("cpu"), switches=switches)
        networks = (trainer.generator, trainer.discriminator.heads, trainer.average)
        start = [flat(network) for network in networks]
        for number in range(1, 4):
            for network, optimiser in zip(
                networks, (trainer.optim_g, trainer.optim_d), strict=False
            ):
                for i, p in enumerate(network.parameters()):
                    p.grad = torch.linspace(i, number * i + 9, p.numel()).sin().view_as(p)
                optimiser.step()
            trainer.update_average(8 * number)
        ends.append([flat(n) - before for n, before in zip(networks, start, strict=True)])
    for plain, together in zip(*ends, strict=True):
        assert plain.norm() > 0 and (plain - together).norm() < 1e-3 * plain.norm()


def flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


def test_a_state_goes_from_one_to_the_other() -> None:
    slow, quick = (Trainer(CFG, torch.device("cpu"), None, s) for s in (fast.NONE, fast.ALL))
    quick.step(torch.zeros(8, 3, 32, 32), torch.arange(8))
    slow.load_state(quick.state())
    one, two = slow.state(), quick.state()
    for part in ("generator", "heads", "average", "projection"):
        assert list(one[part]) == list(two[part])
        assert all(torch.equal(one[part][key], two[part][key]) for key in one[part])
    quick.load_state(one)
    assert quick.optim_g.param_groups[0]["fused"] and not slow.optim_g.param_groups[0]["fused"]
    for trainer in (slow, quick):
        trainer.step(torch.zeros(8, 3, 32, 32), torch.arange(8))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_doubling_and_convolving_at_once(layout: torch.memory_format) -> None:
    x = torch.randn(2, 5, 6, 7).to(memory_format=layout).requires_grad_()
    weight = torch.randn(3, 5, 3, 3).to(memory_format=layout).requires_grad_()
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    got = fast.doubled_conv(x, weight)
    assert torch.allclose(got, expected, atol=1e-5)
    ways = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad(got, (x, weight), ways),
        torch.autograd.grad(expected, (x, weight), ways),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_gate_keeps_the_layout_of_its_gradient() -> None:
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradcheck(fast.gate, x)
    assert torch.allclose(fast.gate(x), F.glu(x, 1))
    (gradient,) = torch.autograd.grad(fast.gate(x).sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", [nn.Conv2d(6, 4, 3), nn.Conv2d(6, 4, 1), nn.ConvTranspose2d(6, 4, 4)])  # fmt: skip  # noqa: E501
def test_spectral_norm_is_torchs(layer: nn.Module, layout: torch.memory_format) -> None:
    layer = spectral_norm(layer).to(memory_format=layout)  # type: ignore[call-overload]
    part: Any = layer.parametrizations["weight"]  # type: ignore[index, union-attr]
    norm, original = part[0], part.original
    u, v = norm._u.clone(), norm._v.clone()
    for _ in range(3):
        got = fast.spectral_weight(original, u, v, norm.dim, norm.eps)
        expected = layer.weight
        assert torch.allclose(got, expected, atol=1e-6)
        assert torch.allclose(u, norm._u, atol=1e-6) and torch.allclose(v, norm._v, atol=1e-6)
    ways = torch.randn_like(got)
    one, two = (torch.autograd.grad(w, original, ways)[0] for w in (got, expected))  # type: ignore[arg-type]
    assert torch.allclose(one, two, atol=1e-5)
    torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")


@pytest.mark.parametrize("name", LAB_NETWORKS)
def test_folding_norms_changes_no_feature(name: str) -> None:
    network = build_backbone(Backbone(zoo="lab", name=name), 32)
    images = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64).sin()
    before = network(images)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert fast.fold_norms(network.trunk, images) == norms
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    for a, b in zip(network(images), before, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("init", ["kaiming", "torch"])
@pytest.mark.parametrize("csm", ["text", "author", "released"])
@pytest.mark.parametrize("channels", [(24, 40, 112, 320), (256, 512, 1024, 2048)])
def test_merged_projections(csm: str, init: str, channels: tuple[int, ...]) -> None:
    projection = Mixing(Projection(csm=csm, init=init, channels=16), channels)  # type: ignore[arg-type]
    maps = [torch.randn(1, c, 16 >> level, 16 >> level) for level, c in enumerate(channels)]
    with FlopCounterMode(display=False) as before:
        expected = projection(maps)
    fast.enable(projection, fast.ALL)
    projection(maps)  # makes the kernels
    with FlopCounterMode(display=False) as after:
        got = projection(maps)
    assert after.get_total_flops() <= before.get_total_flops()
    if csm == "released":  # 1x1 kernels on a quarter of the pixels
        assert after.get_total_flops() < before.get_total_flops() * 0.6
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()))


def test_a_bias_is_not_carried_over_a_zero_padded_border() -> None:
    """With torch's initialisation CCM has a bias, and the 3x3 kernel after it pads with zeros."""
    merged = {}
    for init in ("kaiming", "torch"):
        projection = Mixing(Projection(csm="text", init=init), (8, 8, 8, 8))  # type: ignore[arg-type]
        level = projection.csm[3].merged(projection.ccm[3], True)  # type: ignore[operator]
        merged[init] = len(level.own) == 1
    assert merged == {"kaiming": True, "torch": False}


class Operators(TorchDispatchMode):
    """Counts what reaches torch's kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def expected_products(cfg: Config) -> int:
    """Twice the products of a plain step's convolutions, from the configuration alone.

    The networks of CFG with released blocks, `text` mixing and matched depth.
    """
    n, w, z = cfg.train.batch, cfg.generator.width, cfg.generator.z_dim
    c = {4: 16 * w, 8: 8 * w, 16: 4 * w, 32: 2 * w}
    generator = z * 2 * c[4] * 16
    for r in (8, 16, 32):
        generator += r * r * 9 * (c[r // 2] * 2 * c[r] + c[r] * 2 * c[r])
    generator += 16 * c[4] * c[32] + c[32] * c[32] + 32 * 32 * 9 * c[32] * 3

    network = build_backbone(cfg.backbone, 32)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 32, 32))
    backbone = counter.get_total_flops() // 2
    m = [cfg.projection.channels * 2**i for i in range(4)]
    out = [m[0], *m[:-1]]
    side = [network.input_size // stride for stride in network.strides]
    mixing = sum(
        s * s * (i * o + 9 * o * k)
        for s, i, o, k in zip(side, network.channels, m, out, strict=True)
    )
    heads = first = 0
    for level in range(4):
        size, into = 2 * side[level], out[level]
        count = 4 - level
        widths = [max(32 >> (count - 1 - i), 4) for i in range(count)]
        for i, width in enumerate(widths):
            halve = size > 4
            size = size // 2 if halve else size
            work = size * size * into * width * (16 if halve else 9)
            heads += work
            first += work if i == 0 else 0
            into = width
        heads += 16 * 16 * into
    # D: fakes, features of both, heads of both, forward and backward; the first layers of the
    # heads hand no gradient on. G: everything once, and back without gradients of frozen weights.
    step_d = generator + 2 * (backbone + mixing) + 2 * (3 * heads - first)
    step_g = 3 * generator - z * 2 * c[4] * 16 + 2 * (backbone + mixing + heads)
    return 2 * n * (step_d + step_g)


def test_the_yardstick_does_the_work_of_its_formula_and_no_more() -> None:
    trainer = Trainer(CFG, torch.device("cpu"), switches=fast.NONE)
    real, index = torch.zeros(8, 3, 32, 32), torch.arange(8)
    trainer.step(real, index)
    with FlopCounterMode(display=False) as products:
        trainer.step(real, index)
    assert products.get_total_flops() == expected_products(CFG)
    with Operators() as operators:
        trainer.step(real, index)
    calls = operators.calls
    # Convolutions: those of G twice, backbone, mixing and heads three times; all but the fakes of
    # D's step and the features of its real and fake images go backward.
    layers = [m for m in trainer.discriminator.modules() if isinstance(m, nn.Conv2d)]
    heads = [m for m in trainer.discriminator.heads.modules() if isinstance(m, nn.Conv2d)]
    of_g = [m for m in trainer.generator.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]  # fmt: skip  # noqa: E501
    assert calls["convolution"] == 2 * len(of_g) + 3 * len(layers)
    assert calls["convolution_backward"] == len(of_g) + len(layers) + 2 * len(heads)
    norms = [m for net in (trainer.generator, trainer.discriminator.heads) for m in net.modules()
             if isinstance(m, nn.BatchNorm2d)]  # fmt: skip
    assert norms and all(m.training for m in norms)
    assert sum(calls.values()) <= 4500


def test_bfloat16_keeps_statistics_and_weights_in_float32_and_stays_near() -> None:
    """Eight bits of mantissa: losses are out by hundredths, gradients through all of G by more."""
    cfg = replace(CFG, train=replace(CFG.train, precision="bf16"))
    for switches in (fast.NONE, fast.ALL):
        one, two = one_step(CFG, switches), one_step(cfg, switches)
        assert all(t.dtype == torch.float32 for t in two.values())
        assert (one["losses"] - two["losses"]).abs().max() < 0.05 * one["losses"].abs().max()
        for name, most in (("gradients of D", 0.2), ("gradients of G", 0.5)):
            assert 1e-4 < (one[name] - two[name]).norm() / one[name].norm() < most, name
        for name in one:
            if name.endswith(("_u", "_v")):  # spectral norm is that of float32
                assert torch.allclose(one[name], two[name], atol=1e-5), name


def test_without_a_compiler_a_run_goes_on_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("projgan.speed.compiled.shutil.which", lambda name: None)
    cfg = replace(CFG, train=replace(CFG.train, compile=True))
    assert_equal_up_to_rounding(one_step(CFG, fast.ALL), one_step(cfg, fast.ALL))
    assert "no C++ compiler is on the path; going on without" in caplog.text


def test_a_compiler_that_fails_costs_no_state(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    cfg = replace(CFG, train=replace(CFG.train, compile=True))
    whole = nn.Module.compile

    def broken(self: nn.Module, options: object) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise BackendCompilerFailed(fail, RuntimeError("no space"), None)

        self._compiled_call_impl = fail

    # The generator works, the frozen network after it does not: G's step has begun by then.
    calls = iter([lambda self, options: None, broken, broken, broken])
    monkeypatch.setattr(nn.Module, "compile", lambda self, options: next(calls)(self, options))
    assert_equal_up_to_rounding(one_step(CFG, fast.ALL), one_step(cfg, fast.ALL))
    assert "BackendCompilerFailed" in caplog.text and "going on without" in caplog.text
    monkeypatch.setattr(nn.Module, "compile", whole)


def test_cuda_graphs_without_a_gpu_are_left_out_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"train\.compile=true too"):
        Train(cuda_graphs=True)
    asked: list[object] = []
    monkeypatch.setattr("projgan.speed.compiled.obstacle", lambda device: "")
    monkeypatch.setattr(nn.Module, "compile", lambda self, options: asked.append(options))
    cfg = replace(CFG, train=replace(CFG.train, compile=True, cuda_graphs=True))
    assert_equal_up_to_rounding(one_step(CFG, fast.ALL), one_step(cfg, fast.ALL))
    assert caplog.messages == ["train.cuda_graphs: CUDA graphs need a GPU; going on without"]
    assert asked == [None] * 4


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("compiler", ["works", "fails"])
def test_what_cannot_be_recorded_is_compiled_and_else_eager(
    at: int, compiler: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Recording fails in one of its steps; the step begins anew from the state before it."""
    from torch._dynamo.exc import BackendCompilerFailed

    layer, done = nn.Linear(2, 2, bias=False), 0
    nn.init.zeros_(layer.weight)

    def compile(self: nn.Module, options: object) -> None:
        def call(x: Tensor) -> Tensor:
            if options is not None and done + 1 == at:
                raise RuntimeError("skipping cudagraphs due to a reason\nwith more lines")
            if options is None and compiler == "fails":
                raise BackendCompilerFailed(call, RuntimeError("no space"), None)
            return self.forward(x)

        self._compiled_call_impl = call

    def step() -> int:
        with torch.no_grad():
            layer.weight += 1  # what a step that breaks off has done already
        layer(torch.ones(1, 2))
        return done

    monkeypatch.setattr("projgan.speed.compiled.obstacle", lambda device: "")
    monkeypatch.setattr(nn.Module, "compile", compile)
    compiling = Compiling([layer], torch.device("cuda"), graphs=True)
    while done < 6:
        assert compiling.run(step, layer.state_dict, layer.load_state_dict) == done
        done += 1
        assert bool((layer.weight == done).all())
    first, *others = caplog.messages
    why = "RuntimeError: skipping cudagraphs due to a reason; going on without"
    assert first == f"train.cuda_graphs: {why}"
    assert [line[:36] for line in others] == [
        "train.compile: BackendCompilerFailed"
    ] * (compiler == "fails")  # fmt: skip
    assert (layer._compiled_call_impl is None) == (compiler == "fails")


def test_an_error_of_the_step_itself_is_no_reason_to_fall_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("projgan.speed.compiled.obstacle", lambda device: "")
    monkeypatch.setattr(nn.Module, "compile", lambda self, options: None)
    compiling = Compiling([nn.Linear(2, 2)], torch.device("cpu"), graphs=False)

    def step() -> None:
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        compiling.run(step, dict, lambda state: None)
    assert not caplog.messages


@pytest.mark.gpu
def test_replayed_graphs_compute_the_same() -> None:
    device = torch.device("cuda")
    cfg = replace(CFG, train=replace(CFG.train, compile=True, cuda_graphs=True))
    plain, replayed = (Trainer(c, device) for c in (CFG, cfg))
    for number in range(6):
        index = torch.arange(8 * number, 8 * number + 8, device=device)
        real = torch.linspace(-1, 1, 8 * 3 * 32 * 32, device=device).view(8, 3, 32, 32)
        losses = [torch.stack(trainer.step(real, index)) for trainer in (plain, replayed)]
        assert (losses[0] - losses[1]).abs().max() < 0.02 * losses[0].abs().max()


@pytest.mark.slow
def test_a_compiled_step_is_the_plain_one() -> None:
    cfg = replace(CFG, train=replace(CFG.train, compile=True))
    assert_equal_up_to_rounding(one_step(CFG, fast.NONE), one_step(cfg, fast.ALL))
