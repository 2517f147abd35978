"""Faster forms of parts of a training step that compute the same, each under a name.

Every entry of `SWITCHES` is exact: with it and without it a step gives the same numbers up to the
rounding of another order of summation (tests/projgan/test_fast.py holds that). A module that has a
faster form looks at its `fast`, the set of names that are on; `enable` sets it. With none on, the
code is the plain eager one, in straightforward modules and torch's default layout: the yardstick
that gains are measured against (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

# What a switch does, as the table of gains says it.
SWITCHES = {
    "layout": "channels-last memory for images, maps and kernels",
    "together": "the frozen network sees real and fake images of a D step in one pass",
    "upsampling": "nearest upsampling and the 3x3 convolution after it as one transposed "
    "convolution, 4/9 of the products",
    "gate": "gated linear units whose gradient keeps the layout of the map",
    "latent": "the generator's first layer as a matrix product",
    "spectral": "spectral norm without hooks: one product less, a gradient in closed form",
    "head": "a head's resizing and its 4x4 kernel as one matrix product",
    "norms": "the frozen backbone's batch norms folded into its convolutions",
    "linear": "fixed linear maps of the projection merged, 1x1 kernels before bilinear upsampling",
    "optimiser": "Adam as one operator over all weights",
    "average": "the moving average as one operator over all weights",
}
ALL = frozenset(SWITCHES)
NONE: frozenset[str] = frozenset()


def chosen(on: bool) -> frozenset[str]:
    """The switches of a run: `train.fast`."""
    return ALL if on else NONE


# Fewer pixels than this in a batch's maps do not pay for turning a 3x3 kernel into a 4x4 one.
_ENOUGH_PIXELS = 512


def enable(module: nn.Module, names: Iterable[str]) -> None:
    """Switches the faster forms of these names on in all parts of a module, and all others off."""
    switches = frozenset(names)
    for part in module.modules():
        if hasattr(part, "fast"):
            part.__dict__["fast"] = switches


# Nearest upsampling by two and a 3x3 kernel: two of three taps fall on the same pixel. Output row
# 2m sees input rows m-1, m through taps 0 and 1+2, output row 2m+1 sees m, m+1 through 0+1 and 2.
# A transposed convolution of stride 2 and padding 1 hands input m to output row 2m-1+k by its k-th
# tap: k = 0..3 are the taps 2, 1+2, 0+1 and 0. Both directions at once are the Kronecker square.
@lru_cache(maxsize=8)
def _taps(device: torch.device, dtype: torch.dtype) -> Tensor:
    """[16, 9] zeros and ones, made on the device: a step that fetched them would wait for them."""
    k, tap = torch.arange(4, device=device), torch.arange(3, device=device)
    one = ((k[:, None] + tap) // 2 == 1).to(dtype)  # [4, 3]
    return torch.kron(one, one)


def pays_to_merge(x: Tensor) -> bool:
    """Return whether maps [N, C, H, W] are large enough for `doubled_conv`."""
    return x.shape[0] * x.shape[2] * x.shape[3] >= _ENOUGH_PIXELS


def doubled_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Nearest upsampling by two, then a 3x3 convolution with padding 1, as one operator.

    Args:
        x: [N, C, H, W].
        weight: [O, C, 3, 3].

    Returns:
        [N, O, 2H, 2W].
    """
    o, c = weight.shape[:2]
    both = _taps(weight.device, weight.dtype)
    with torch.autocast(x.device.type, enabled=False):
        kernel = both @ weight.permute(0, 2, 3, 1).reshape(o, 9, c)  # [O, 16, C]
    return F.conv_transpose2d(x, kernel.view(o, 4, 4, c).permute(3, 0, 1, 2), stride=2, padding=1)


class _Gate(torch.autograd.Function):
    """a * sigmoid(b) of the two halves of the channels.

    torch's own operator returns a gradient in the default layout, whatever that of the map is; the
    operators before it then run several times slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        s = torch.sigmoid(b)
        ctx.save_for_backward(x, s)
        return a * s

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, s = ctx.saved_tensors
        (g,) = gradients
        half = s.shape[1]
        out = torch.empty_like(x)
        torch.mul(g, s, out=out[:, :half])
        torch.ops.aten.sigmoid_backward.grad_input(g * x[:, :half], s, grad_input=out[:, half:])
        return out


def gate(x: Tensor) -> Tensor:
    """Gated linear unit over the channels: [N, 2C, H, W] -> [N, C, H, W]."""
    result: Tensor = _Gate.apply(x)
    return result


class _Spectral(torch.autograd.Function):
    """W / sigma(W) after one power iteration; u and v are moved in place and count as constants.

    With t = W' u the estimate u' W v is t' t / |t| = |t|: one product serves both. The gradient of
    W / sigma with sigma = u' W v is (g - <g, W / sigma> u v') / sigma.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, dim: int, eps: float) -> Tensor:
        order = _memory_order(weight)
        matrix = weight.permute(order).reshape(weight.shape[order[0]], -1)
        right = v
        if dim == 0 and order != (0, 1, 2, 3):  # v counts channels first, memory last
            right = v.view(weight.shape[1:]).permute(1, 2, 0).reshape(-1)
        if dim == 1:
            matrix = matrix.view(-1, weight.shape[1]).t()
        torch.mv(matrix, right, out=u)
        u.div_(u.norm().clamp_min_(eps))
        new_u = u.clone()  # u moves on before the gradient is asked for
        image = torch.mv(matrix.t(), new_u)
        sigma = image.norm()
        right = image / sigma.clamp_min(eps)
        if dim == 0 and order != (0, 1, 2, 3):
            k = weight.shape[2:]
            v.copy_(right.view(*k, weight.shape[1]).permute(2, 0, 1).reshape(-1))
        else:
            v.copy_(right)
        out = weight / sigma
        left, right = (new_u, right) if dim == 0 else (right, new_u)
        ctx.save_for_backward(out, left, right, sigma)
        ctx.order = order
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        out, left, right, sigma = ctx.saved_tensors
        shape = (len(left), len(right))
        moved = [t.permute(ctx.order) for t in (gradients[0], out)]
        g, w = (t.reshape(shape) for t in moved)
        inner = torch.dot(g.reshape(-1), w.reshape(-1))
        grad = torch.addr(g, left * -inner, right).div_(sigma)
        back = [ctx.order.index(i) for i in range(4)]
        return grad.view(moved[1].shape).permute(back), None, None, None, None


def _memory_order(weight: Tensor) -> tuple[int, int, int, int]:
    """The order of a kernel's dimensions in memory: default, or channels last."""
    return (0, 1, 2, 3) if weight.is_contiguous() else (0, 2, 3, 1)


def spectral_weight(weight: Tensor, u: Tensor, v: Tensor, dim: int, eps: float) -> Tensor:
    """A kernel under spectral norm (Miyato et al., 2018), as torch's parametrization computes it.

    Args:
        weight: [O, I, h, w], or [I, O, h, w] of a transposed convolution.
        u, v: its singular vectors so far, changed in place by one power iteration.
        dim: of `weight` that counts the outputs, 0 or 1.
        eps: against a division by zero.
    """
    if dim == 1 and weight.is_contiguous():  # the layout in which the matrix is no copy
        weight = weight.contiguous(memory_format=torch.channels_last)
    result: Tensor = _Spectral.apply(weight, u, v, dim, eps)
    return result


# As many pixels of a map at most are worth a product of all pixels with all logits.
_FEW_PIXELS = 256


def pays_to_multiply(x: Tensor) -> bool:
    """Return whether maps [N, C, H, W] are small enough for `resized_head`."""
    return x.shape[2] * x.shape[3] <= _FEW_PIXELS


def resized_head(x: Tensor, weight: Tensor, size: int) -> Tensor:
    """Bilinear resizing, then a convolution to one channel without padding, as one product.

    Args:
        x: [N, C, S, S].
        weight: [1, C, k, k].
        size: pixels of the resized map.

    Returns:
        [N, 1, size - k + 1, size - k + 1].
    """
    n, c, s, _ = x.shape
    k = weight.shape[-1]
    side = size - k + 1
    table = _head_table(s, size, k, x.device, weight.dtype)
    with torch.autocast(x.device.type, enabled=False):
        kernel = table @ weight.permute(0, 2, 3, 1).reshape(k * k, c)  # [side^2 s^2, C]
    flat = x.permute(0, 2, 3, 1).reshape(n, s * s * c)
    return F.linear(flat, kernel.view(side * side, s * s * c)).view(n, 1, side, side)


@lru_cache(maxsize=32)
def _head_table(s: int, size: int, k: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[side^2 s^2, k^2]: how much of a pixel each tap of the kernel sees for each logit."""
    eye = torch.eye(s, dtype=torch.float64, device=device)[
        None
    ]  # [1, s, s]: column p is the map with pixel p
    line = F.interpolate(eye, size, mode="linear", align_corners=False)[0]  # [p, size]
    seen = line.unfold(1, k, 1).permute(1, 0, 2)  # [side, p, tap]
    both = torch.einsum("ipa,jqb->ijpqab", seen, seen)
    return both.reshape(-1, k * k).to(dtype)


@torch.no_grad()
def fold_norms(network: nn.Module, images: Tensor) -> int:
    """Folds batch norms into the convolutions before them, for a network that stays in eval mode.

    Which norm follows which convolution is seen in one pass: a norm whose input is a convolution's
    output. An activation inside the norm's module stays.

    Args:
        network: changed in place.
        images: anything that it takes.

    Returns:
        How many were folded.
    """
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # id of an output; kept alive, ids stay unique
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made[id(output)] = (module, output)
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    watched = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(watch) for m in network.modules() if isinstance(m, watched)]
    network(images)
    for hook in hooks:
        hook.remove()
    convs, norms = ([id(pair[i]) for pair in pairs] for i in (0, 1))
    once = [p for p in pairs if convs.count(id(p[0])) == norms.count(id(p[1])) == 1]
    places = {id(child): (parent, name) for parent in network.modules()
              for name, child in parent.named_children()}  # fmt: skip
    for conv, norm in once:
        assert norm.running_mean is not None and norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            conv.weight.double(),
            None if conv.bias is None else conv.bias.double(),
            norm.running_mean.double(),
            norm.running_var.double(),
            norm.eps,
            norm.weight.double(),
            norm.bias.double(),
        )
        kept = torch.preserve_format
        conv.weight = nn.Parameter(weight.to(conv.weight.dtype, memory_format=kept), False)
        conv.bias = nn.Parameter(bias.to(conv.weight.dtype), False)
        parent, name = places[id(norm)]
        rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
        setattr(parent, name, nn.Sequential(*rest) if rest else nn.Identity())
    return len(once)
