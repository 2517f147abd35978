"""The configuration of one run: frozen, typed, checked when it is built, free of torch.

Every default is the paper's setting at 256 px where it is known; `experiments/scales/lab.yaml`
shrinks it. A field's comment gives its meaning; where paper and released code differ, both are
named options. Counting is in images (kimg = 1000 real images shown to the discriminator).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from projgan.errors import ConfigError, unknown


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigError(message)


LIKENESSES = ("clevr",)  # data sets that are rendered here (projgan.data.dataset.RENDERED)


@dataclass(frozen=True)
class Data:
    name: str = "lsun_church"  # "clevr" is rendered here; any other is a name for what `path` holds
    path: str | None = None  # folder of images. None = a data set that is rendered
    resolution: int = 256  # pixels, square, a power of two
    images: int | None = None  # how many images a rendered data set has. None = its default
    subset: int | None = None  # train on the first n of a fixed shuffle (nested). None = all
    # How images of another size were resized when they were packed; box is the mean over a pixel.
    filter: Literal["lanczos", "box"] = "lanczos"
    mirror: bool = True  # random horizontal flips of real images
    classes: int = 0  # train class-conditionally on so many classes of a prepared set; 0 = not

    def __post_init__(self) -> None:
        _require(
            re.fullmatch(r"[^\W_][^/\\\0]*", self.name) is not None,
            f"data.name={self.name!r} becomes part of a folder's name: begin with a letter or "
            "digit, and use no slash",
        )
        r = self.resolution
        _require(
            32 <= r <= 1024 and r & (r - 1) == 0,
            f"data.resolution={r}: give a power of two from 32 to 1024",
        )
        for name in ("images", "subset"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"data.{name}={value}: give 1 or more, or null")
        c = self.classes
        _require(c == 0 or c >= 2, f"data.classes={c}: give 2 or more, or 0")
        _require(
            self.filter == "lanczos" or self.path is not None or self.name not in LIKENESSES,
            f"data.filter={self.filter}: data.name={self.name} is rendered at its size; "
            "leave data.filter out",
        )
        # The images of a folder are as many as it holds; `images` does not count there.
        if self.path is None and self.images is not None and self.subset is not None:
            _require(
                self.subset <= self.images,
                f"data.subset={self.subset} is more than data.images={self.images}",
            )


@dataclass(frozen=True)
class Backbone:
    # A row of projgan.backbones.BACKBONES, timm/NAME for any other network of timm, or several of
    # these with + between them: a set of discriminators on each.
    name: str = "efficientnet_lite1"
    zoo: Literal["imagenet", "lab"] = "imagenet"  # full-size networks, or the ones that ship here
    weights: str = "pretrained"  # pretrained | random | path of a safetensors file
    pretrain_seed: int = 0  # which of the lab networks' pretraining seeds (0 or 1)
    input_size: int | None = None  # images are resized to this. None = the rule of the zoo

    def __post_init__(self) -> None:
        s = self.input_size
        _require(
            s is None or (s >= 32 and s % 32 == 0),
            f"backbone.input_size={s}: give a multiple of 32, or null",
        )
        n = self.pretrain_seed
        _require(n >= 0, f"backbone.pretrain_seed={n}: give 0 or more")
        _require(
            n in (0, 1) or self.zoo != "lab" or self.weights != "pretrained",
            f"backbone.pretrain_seed={n}: the lab networks were pretrained with 0 and 1",
        )


@dataclass(frozen=True)
class Projection:
    kind: Literal["none", "ccm", "ccm_csm"] = "ccm_csm"  # Section 3.2: cross-channel, cross-scale
    csm: Literal["text", "author", "released"] = "text"  # which account of CSM; see projection.py
    init: Literal["kaiming", "torch", "rotation"] = "kaiming"  # paper, released code, ablation
    channels: int = 64  # CCM output of the shallowest level; doubles with each level
    # Against learning few images by heart, in training alone (projgan/augment/features.py).
    drop_levels: float = 0.0  # chance that a level's discriminator sits out a step
    drop_channels: float = 0.0  # chance that a channel of the projected maps does
    noise: float = 0.0  # on the projected maps, relative to their standard deviation

    def __post_init__(self) -> None:
        c = self.channels
        _require(c >= 2 and c % 2 == 0, f"projection.channels={c}: give an even number from 2")
        for name in ("drop_levels", "drop_channels"):
            share = getattr(self, name)
            _require(0 <= share < 1, f"projection.{name}={share}: give a share from 0, below 1")
        _require(self.noise >= 0, f"projection.noise={self.noise}: give 0 or more")


@dataclass(frozen=True)
class Discriminator:
    # On frozen features: projected, perceptual. On images: rgb (the same blocks; Table 1's
    # baseline), and the methods' own: stylegan2, fastgan.
    kind: Literal["projected", "perceptual", "rgb", "stylegan2", "fastgan"] = "projected"
    layers: tuple[int, ...] = (1, 2, 3, 4)  # feature levels that have a discriminator
    # matched: 4/3/2/1 down blocks on levels 1-4 whatever the projection; by_map: as many as halve
    # the map down to `base` (the released rule, in which CSM also adds a block to each level).
    depth: Literal["matched", "by_map"] = "matched"
    base: int = 8  # pixels of the map that the heads look at
    logits: Literal["4x4", "native"] = "4x4"  # paper: 4x4 on every level; released: what comes out
    reduce: Literal["sum", "mean"] = "sum"  # over the levels: paper, released code
    width: int = 512  # channels of the last block; halves with each block before it, 64 at least
    # Of the stylegan2 kind only: factor on channels below their maximum, and the images whose
    # spread a discriminator is shown at its end.
    fmaps: float = 1.0
    mbstd_group: int = 4
    cmap: int = 64  # class-conditional: length of what is projected onto a class's embedding
    separable: bool = False  # depthwise separable blocks (released code, StyleGAN2 only)
    extra_rgb: bool = False  # one more discriminator, on the image, beside the projected ones
    # Weights of the gradient penalties at real and at generated images (Mescheder et al., 2018);
    # 0 = none. On frozen features they are taken at the projected maps that enter the heads.
    r1: float = 0.0
    r2: float = 0.0
    r1_every: int = 16  # steps between two penalties of either kind, each as heavy as all of them

    def __post_init__(self) -> None:
        _require(
            len(self.layers) > 0
            and list(self.layers) == sorted(set(self.layers))
            and set(self.layers) <= {1, 2, 3, 4},
            f"discriminator.layers={list(self.layers)}: give distinct levels of 1-4, ascending",
        )
        _require(self.cmap >= 1, f"discriminator.cmap={self.cmap}: give 1 or more")
        b = self.base
        _require(b in (4, 8), f"discriminator.base={b}: give 4 or 8")
        w = self.width
        _require(w >= 16 and w % 16 == 0, f"discriminator.width={w}: give a multiple of 16")
        _require(self.fmaps > 0, f"discriminator.fmaps={self.fmaps}: give more than 0")
        _require(self.mbstd_group >= 1, f"discriminator.mbstd_group={self.mbstd_group}: give 1 or more")  # fmt: skip  # noqa: E501
        for name in ("r1", "r2"):
            weight = getattr(self, name)
            _require(weight >= 0, f"discriminator.{name}={weight}: give 0 or more")
        _require(self.r1_every >= 1, f"discriminator.r1_every={self.r1_every}: give 1 or more")
        _require(
            not self.extra_rgb or self.kind == "projected",
            "discriminator.extra_rgb=true is beside discriminators on projected features: "
            f"leave it out with discriminator.kind={self.kind}",
        )

    @property
    def on_images(self) -> bool:
        """Whether it takes images, without a feature network."""
        return self.kind in ("rgb", "stylegan2", "fastgan")


GENERATOR_NAMES = (
    "fastgan",
    "fastgan_lite",
    "stylegan2",
)  # the rows of projgan.generators.GENERATORS


@dataclass(frozen=True)
class Generator:
    name: str = "fastgan"
    # released: large blocks only, latent on the hypersphere; paper: large and small blocks
    # alternate, latent as drawn (the first release, closest to the paper).
    preset: Literal["paper", "released"] = "paper"
    z_dim: int = 256
    width: int = 64  # channel multiplier (ngf); 64 paper, 128 released
    output: Literal["linear", "tanh"] = "linear"  # released code; FastGAN's own, bounded
    rgb_bias: bool = False  # FastGAN: its last convolution has a bias (released code)
    embed: int = 128  # class-conditional FastGAN: length of a class's embedding
    # StyleGAN2 only.
    fmaps: float = 1.0  # factor on channels below their maximum
    w_dim: int = 128
    mapping_layers: int = 2
    style_mixing: float = 0.0  # share of training images with two styles
    path_length: float = 0.0  # weight of path length regularisation (Karras et al., 2020)
    path_length_every: int = 4

    def __post_init__(self) -> None:
        if self.name not in GENERATOR_NAMES:
            raise ConfigError(unknown("generator", self.name, GENERATOR_NAMES))
        _require(self.z_dim >= 2, f"generator.z_dim={self.z_dim}: give 2 or more")
        w = self.width
        _require(w >= 4 and w % 4 == 0, f"generator.width={w}: give a multiple of 4")
        _require(self.fmaps > 0, f"generator.fmaps={self.fmaps}: give more than 0")
        for name in ("w_dim", "mapping_layers", "path_length_every", "embed"):
            value = getattr(self, name)
            _require(value >= 1, f"generator.{name}={value}: give 1 or more")
        _require(
            not self.rgb_bias or self.name != "stylegan2",
            "generator.rgb_bias is for FastGAN: StyleGAN2 has its own; leave it out",
        )
        m, p = self.style_mixing, self.path_length
        _require(0 <= m <= 1, f"generator.style_mixing={m}: give a share from 0 to 1")
        _require(p >= 0, f"generator.path_length={p}: give 0 or more")
        _require(
            (m == 0 and p == 0) or self.name == "stylegan2",
            f"generator.name={self.name} has no styles: generator.style_mixing and "
            "generator.path_length are for stylegan2",
        )


def policy_of(text: str) -> str:
    """The policy that is meant: "" for each of its names, so that all of them are the same run."""
    return "" if text.strip().lower() in ("none", "off") else text


@dataclass(frozen=True)
class Augment:
    policy: str = "color,translation,cutout"  # DiffAugment, comma separated; "", none or off = none
    # Adaptive augmentation (Karras et al., 2020): what the mean sign of D(real) is held at, 0.6 in
    # that paper; 0 = off.
    ada_target: float = 0.0
    # All images that D sees are blurred at first, with a filter of 2^-(x / sigma)^2 in pixels whose
    # sigma goes down to 0 in a line (StyleGAN-XL, where it is 2 and 300); 0 = off.
    blur_sigma: float = 0.0
    blur_fade_kimg: float = 300.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", policy_of(self.policy))
        parts = [p for p in self.policy.split(",") if p]
        bad = [p for p in parts if p not in ("color", "translation", "cutout")]
        _require(not bad, f"augment.policy={self.policy!r}: use color, translation, cutout or none")
        a = self.ada_target
        _require(0 <= a < 1, f"augment.ada_target={a}: give a number from 0, below 1")
        _require(self.blur_sigma >= 0, f"augment.blur_sigma={self.blur_sigma}: give 0 or more")
        k = self.blur_fade_kimg
        _require(k > 0, f"augment.blur_fade_kimg={k}: give more than 0")


@dataclass(frozen=True)
class Optim:
    lr_g: float = 2e-4
    lr_d: float = 2e-4
    beta1: float = 0.0
    beta2: float = 0.99
    # The released code shrinks D's rate and betas as for lazy regularisation every 16 steps,
    # although no regulariser runs.
    rescale_d: bool = False
    rescale_g: bool = False  # the same for G, by path length regularisation's interval

    def __post_init__(self) -> None:
        for name in ("lr_g", "lr_d"):
            lr = getattr(self, name)
            _require(0 < lr < 1, f"optim.{name}={lr}: give a rate between 0 and 1")
        for name in ("beta1", "beta2"):
            b = getattr(self, name)
            _require(0 <= b < 1, f"optim.{name}={b}: give a number from 0, below 1")


# Further averages that a run may keep (`train.averages`): names, and their half-lives as multiples
# of the run's own, its ramp-up included.
AVERAGES = {"quarter": 0.25, "half": 0.5, "double": 2.0, "fourfold": 4.0}

MAX_SEED = 2**32 - 1  # torch seeds have 64 bits, and the purpose of a network takes 31 of them


@dataclass(frozen=True)
class Train:
    seed: int = 0  # decides latents, augmentation, data order, initial weights, projections
    total_kimg: float = 10000.0  # real images shown to the discriminator, in thousands
    batch: int = 64
    ema_kimg: float = 20.0  # half-life of the generator's moving average
    # The half-life is at most this share of the images shown so far. None = no such bound.
    ema_rampup: float | None = 0.05
    averages: bool = False  # keeps those of AVERAGES too, to be measured beside it
    loss: Literal["hinge", "nonsaturating", "wasserstein", "relativistic"] = "hinge"
    # balanced: of real and fake images, those that D is less right about count more in its loss,
    # and generated images that D surely rejects count more in G's.
    feedback: Literal["plain", "balanced"] = "plain"
    # Images that batch norm normalises together, in G and in D, real and fake apart: groups by the
    # samples' global index, the same on any number of processes and in any micro-batches. The
    # released command gives 8. None = the whole batch, or a micro-batch of it.
    norm_group: int | None = None
    # Images whose gradients are computed at once; the rest of the batch follows and the optimisers
    # step after it. Without norm_group batch norm sees so few, so this is another protocol. None =
    # the whole batch.
    micro_batch: int | None = None
    # The faster forms of projgan/speed/fast.py, equal up to rounding; false = the plain eager path.
    fast: bool = True
    # bf16: networks under autocast to bfloat16; statistics, spectral norm, losses, weights and
    # evaluation stay float32.
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False  # torch.compile for generator, frozen network and heads
    cuda_graphs: bool = False  # what was compiled is recorded once and replayed; on a GPU

    def __post_init__(self) -> None:
        _require(
            0 <= self.seed <= MAX_SEED,
            f"train.seed={self.seed}: give a whole number from 0 to {MAX_SEED}",
        )
        _require(self.total_kimg > 0, f"train.total_kimg={self.total_kimg}: give more than 0")
        _require(self.batch >= 2, f"train.batch={self.batch}: batch norm needs 2 or more")
        _require(
            self.compile or not self.cuda_graphs,
            "train.cuda_graphs=true records what torch.compile made: give train.compile=true too",
        )
        _require(
            self.loss != "relativistic" or self.feedback == "plain",
            "train.loss=relativistic has one term for real and fake: give train.feedback=plain",
        )
        for name in ("ema_kimg", "ema_rampup"):
            value = getattr(self, name)
            _require(value is None or value >= 0, f"train.{name}={value}: give 0 or more")
        m = self.micro_batch
        _require(
            m is None or 2 <= m <= self.batch,
            f"train.micro_batch={m}: give 2 to train.batch={self.batch}, or null",
        )
        g = self.norm_group
        _require(
            g is None or (g >= 2 and self.batch % g == 0),
            f"train.norm_group={g}: give 2 or more that train.batch={self.batch} is a multiple of, "
            "or null",
        )

    def least_part(self, processes: int = 1) -> int:
        """Of how many images a process's micro-batches are made: whole groups of batch norm."""
        share, group = self.batch // processes, self.norm_group or 1
        return share if share % group else group


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes (Section 3 and supplement of the paper)."""

    data: Data = field(default_factory=Data)
    backbone: Backbone = field(default_factory=Backbone)
    projection: Projection = field(default_factory=Projection)
    discriminator: Discriminator = field(default_factory=Discriminator)
    generator: Generator = field(default_factory=Generator)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        _require(
            self.data.classes == 0 or self.discriminator.kind != "fastgan",
            "discriminator.kind=fastgan knows no classes: give data.classes=0 or another one",
        )

    @property
    def outputs(self) -> int:
        """Channels that discriminators end in: logits, or what is projected onto a class."""
        return self.discriminator.cmap if self.data.classes else 1


def unused(cfg: Config) -> dict[str, str]:
    """Dotted fields that no part of a run reads at these settings -> the setting that says so.

    Whatever they are, training is the same to the bit.
    """
    d, g, p = cfg.discriminator, cfg.generator, cfg.projection
    rules = (
        (d.on_images, f"discriminator.kind={d.kind}", ("backbone.name backbone.weights "
         "backbone.pretrain_seed backbone.input_size projection.kind projection.csm "
         "projection.init projection.channels discriminator.layers discriminator.depth")),
        (d.on_images and d.kind != "rgb", f"discriminator.kind={d.kind}",
         "discriminator.base discriminator.logits discriminator.separable"),
        (d.kind == "perceptual", "discriminator.kind=perceptual", "discriminator.depth"),
        (d.kind in ("perceptual", "rgb", "stylegan2"), f"discriminator.kind={d.kind}",
         "discriminator.reduce"),  # of one map of logits
        (p.kind == "none", "projection.kind=none",
         "projection.csm projection.init projection.channels"),
        (p.kind == "ccm", "projection.kind=ccm", "projection.csm"),
        (d.r1 == 0 and not cfg.optim.rescale_d, "discriminator.r1=0", "discriminator.r1_every"),
        (g.name != "stylegan2", f"generator.name={g.name}",
         "generator.w_dim generator.mapping_layers"),
        (g.path_length == 0 and not cfg.optim.rescale_g, "generator.path_length=0",
         "generator.path_length_every"),
        (cfg.data.classes == 0, "data.classes=0", "generator.embed discriminator.cmap"),
        (cfg.data.path is not None, "data.path=", "data.images"),
    )  # fmt: skip
    found: dict[str, str] = {}
    for holds, why, names in rules:
        for name in names.split() if holds else ():
            found.setdefault(name, why)
    return found


def from_dict(values: dict[str, Any]) -> Config:
    """A Config from nested plain values, as `dataclasses.asdict` or JSON gives them.

    Fields that are absent keep their defaults; an unknown section or field is refused.
    """
    sections = {f.name: f.default_factory for f in fields(Config)}
    built: dict[str, Any] = {}
    for section, content in values.items():
        if section not in sections:
            raise ConfigError(unknown("config section", section, sections))
        kind: Any = sections[section]
        known = {f.name for f in fields(kind)}
        for name in content:
            if name not in known:
                raise ConfigError(unknown(f"field of {section}", name, known))
        content = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        built[section] = kind(**content)
    return Config(**built)
