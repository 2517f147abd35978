"""Objectives of pretraining by family: labels, captions, a teacher, or the images alone.

An objective owns the network and whatever is needed in training only. `loss` is called once per
step; `shipped` gives the tensors that go into the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgan.backbones.lab import EMBED, LAB_NETWORKS, extractor_network
from projgan.pretrain.pictures import cropped, jittered

State = dict[str, Tensor]
SMOOTHING = 0.1  # of labels


class Objective(Protocol):
    """An objective as the training loop uses it."""

    modules: nn.ModuleList
    lr: float
    text: str

    def loss(self, images: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        """Of images [N, 3, 32, 32] in [-1, 1], the `index`-th [N] of the training set."""
        ...

    def shipped(self) -> State:
        """The tensors to ship, by the network's own names."""
        ...


def _rate(name: str) -> float:
    return 1e-3 if name in ("vit", "deit") else 3e-3


class Supervised:
    """Cross-entropy on the class of the main object."""

    text = "labels: cross-entropy"

    def __init__(self, name: str, labels: Tensor, classes: int) -> None:
        self.model = LAB_NETWORKS[name](classes)
        self.modules = nn.ModuleList([self.model])
        self.lr = _rate(name)
        self.labels = labels

    def loss(self, images: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        scores = self.model(cropped(images, 0.75, generator))
        return F.cross_entropy(scores, self.labels[index], label_smoothing=SMOOTHING)

    def shipped(self) -> State:
        return self.model.state_dict()


class Distilled:
    """Labels for one head, a teacher's decisions for the other (DeiT, Section 3: hard labels)."""

    text = "labels and the decisions of efficientnet_lite4 of the same seed"

    def __init__(self, name: str, labels: Tensor, classes: int, teacher: nn.Module) -> None:
        self.model = LAB_NETWORKS[name](classes)
        self.model.set_distilled_training(True)
        self.modules = nn.ModuleList([self.model])
        self.lr = _rate(name)
        self.labels = labels
        self.teacher = teacher.eval()

    def loss(self, images: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        seen = cropped(images, 0.75, generator)
        with torch.no_grad():
            decided = self.teacher(seen).argmax(1)
        scores, distilled = self.model(seen)
        own = F.cross_entropy(scores, self.labels[index], label_smoothing=SMOOTHING)
        taught: Tensor = F.cross_entropy(distilled, decided)
        return (own + taught) / 2

    def shipped(self) -> State:
        return self.model.state_dict()


def tokenised(captions: Sequence[str], words: dict[str, int], length: int) -> Tensor:
    """Captions as word numbers, int64 [N, length], 0 where a caption has ended."""
    tokens = torch.zeros(len(captions), length, dtype=torch.int64)
    for i, caption in enumerate(captions):
        numbers = [words[word] for word in caption.replace(",", " ,").split()]
        tokens[i, : len(numbers)] = torch.tensor(numbers)
    return tokens


def vocabulary(captions: Sequence[str]) -> tuple[dict[str, int], int]:
    """Word numbers from 1, in alphabetical order, and the longest caption's length."""
    split = [caption.replace(",", " ,").split() for caption in captions]
    words = sorted(set().union(*split))
    return {word: i + 1 for i, word in enumerate(words)}, max(map(len, split))


class TextTower(nn.Module):
    """Two transformer layers and a mean over words; needed in pretraining only."""

    def __init__(self, words: int, length: int) -> None:
        super().__init__()
        self.word = nn.Embedding(words + 1, EMBED, padding_idx=0)
        self.place = nn.Parameter(torch.randn(length, EMBED) * 0.02)
        nn.init.normal_(self.word.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            EMBED, 4, 2 * EMBED, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(EMBED, EMBED)

    def forward(self, tokens: Tensor) -> Tensor:
        """Word numbers [N, L] to unit vectors [N, EMBED]."""
        x = self.word(tokens) + self.place
        x = self.layers(x, src_key_padding_mask=tokens == 0)
        there = (tokens != 0).unsqueeze(2)
        x = (x * there).sum(1) / there.sum(1)
        return F.normalize(self.out(x), dim=1)


class Contrastive:
    """Image and caption find each other among those of the batch (CLIP)."""

    text = "captions: image and text find each other in the batch"

    def __init__(self, name: str, captions: Sequence[str], classes: Sequence[str]) -> None:
        self.words, self.length = vocabulary(captions)
        self.captions = captions
        self.tokens = tokenised(captions, self.words, self.length)
        self.classes = classes
        self.tower = LAB_NETWORKS[name](0)
        self.text_tower = TextTower(len(self.words), self.length)
        self.scale = nn.ParameterList([nn.Parameter(torch.tensor(2.66))])  # log(1 / 0.07), as CLIP
        self.modules = nn.ModuleList([self.tower, self.text_tower, self.scale])
        self.lr = 2e-3

    def loss(self, images: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        image = F.normalize(self.tower(cropped(images, 0.75, generator)), dim=1)
        text = self.text_tower(self.tokens[index])
        logits = self.scale[0].clamp(max=4.6).exp() * image @ text.T
        own = torch.arange(len(images))
        loss: Tensor = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return loss

    @torch.no_grad()
    def prompts(self) -> Tensor:
        """One unit vector per class [classes, EMBED]: the mean over captions that begin with it.

        A caption begins with the main object: "a large shiny red cone, ...". A class that none
        begins with gets zeros.
        """
        self.text_tower.eval()
        first = [" ".join(c.replace(",", "").split()[3:5]) for c in self.captions]
        vectors = []
        for name in self.classes:
            rows = [i for i, named in enumerate(first) if named == name][:300]
            vectors.append(
                self.text_tower(self.tokens[rows]).mean(0) if rows else torch.zeros(EMBED)
            )
        return F.normalize(torch.stack(vectors), dim=1)

    def shipped(self) -> State:
        return {**self.tower.state_dict(), "prompts": self.prompts()}


class SelfSupervised:
    """Two views agree, features keep their spread and differ from each other (VICReg).

    For the metric's extractor: no labels, no captions.
    """

    text = "no labels: VICReg on two views of an image"

    def __init__(self) -> None:
        self.model = extractor_network()
        width = self.model.num_features
        self.projector = nn.Sequential(
            nn.Linear(width, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 256),
        )
        self.modules = nn.ModuleList([self.model, self.projector])
        self.lr = 2e-3

    def loss(self, images: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        views = [jittered(cropped(images, 0.6, generator), generator) for _ in range(2)]
        a, b = self.projector(self.model(torch.cat(views))).chunk(2)
        return 25 * F.mse_loss(a, b) + _spread(a) + _spread(b)

    def shipped(self) -> State:
        return self.model.state_dict()


def _spread(z: Tensor) -> Tensor:
    """VICReg's variance (weight 25, halved per view) and covariance terms."""
    z = z - z.mean(0)
    std = (z.var(0) + 1e-4).sqrt()
    covariance = (z.T @ z) / (len(z) - 1)
    off = covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()
    return 12.5 * F.relu(1 - std).mean() + off / z.shape[1]
