"""Trains a small transformer on the comments and docstrings of Python's own library: which package is a sentence from?

Writes text.onnx and text.npz (calibration and test sentences as token ids, with labels) to the folder given, by default
.cache/int8. Needs torch; takes a few minutes. The split and the seed are fixed, so a run repeats.

    python models/train_text.py
"""

import io
import re
import sys
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

PACKAGES = ("asyncio", "email", "tkinter", "unittest", "multiprocessing", "xml", "idlelib", "logging", "ctypes", "http")
FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "int8"
LENGTH, WORDS, MIN_WORDS = 32, 4000, 5
PAD, UNKNOWN = 0, 1
WIDTH, HEADS, LAYERS = 128, 4, 2
EPOCHS, BATCH, RATE = 8, 64, 1e-3
TEST_SHARE, CALIBRATION = 0.25, 300


def sentences(package: str) -> Iterator[str]:
    """Runs of words in the strings and comments of a package's files."""
    root = Path(sysconfig.get_paths()["stdlib"]) / package
    for file in sorted(root.rglob("*.py")):
        if "test" in file.parts or "idle_test" in file.parts:
            continue
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(file.read_text("utf-8")).readline))
        except (tokenize.TokenError, UnicodeDecodeError, SyntaxError):
            continue
        for token in tokens:
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                yield from re.split(r"(?<=[.!?:])\s+|\n\s*\n", token.string)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d", text.lower())


def corpus() -> tuple[np.ndarray, np.ndarray]:
    """Token ids [N, LENGTH] and labels [N], shuffled; a sentence that several packages hold is left out."""
    found: dict[tuple[str, ...], set[int]] = {}
    for label, package in enumerate(PACKAGES):
        for text in sentences(package):
            key = tuple(words(text)[:LENGTH])
            if len(key) >= MIN_WORDS:
                found.setdefault(key, set()).add(label)
    kept = [(key, next(iter(labels))) for key, labels in found.items() if len(labels) == 1]
    counts = Counter(word for key, _ in kept for word in key)
    vocabulary = {word: i + 2 for i, (word, _) in enumerate(counts.most_common(WORDS - 2))}
    ids = np.zeros((len(kept), LENGTH), np.int64)
    for row, (key, _) in enumerate(kept):
        ids[row, : len(key)] = [vocabulary.get(word, UNKNOWN) for word in key]
    order = np.random.default_rng(0).permutation(len(kept))
    return ids[order], np.array([label for _, label in kept])[order]


class Layer(nn.Module):
    """Attention and a feed-forward net, each with a residual and a normalisation behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        heads = lambda t: t.reshape(-1, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)  # noqa: E731
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        weights = torch.softmax(q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + mask, -1)
        joined = (weights @ v).transpose(1, 2).reshape(-1, LENGTH, WIDTH)
        x = self.first(x + self.drop(self.o(joined)))
        return self.second(x + self.drop(self.down(nn.functional.gelu(self.up(x)))))


class Classifier(nn.Module):
    """ids [N, LENGTH] to logits [N, packages]: the mean of the words that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(WIDTH, len(PACKAGES))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        there = (ids != PAD).float()
        mask = (1 - there)[:, None, None, :] * -1e4
        x = self.drop(self.words(ids) + self.places)
        for layer in self.layers:
            x = layer(x, mask)
        mean = (x * there[:, :, None]).sum(1) / there.sum(1, keepdim=True)
        return self.head(self.drop(mean))


def train(model: nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> None:
    steps = EPOCHS * -(-len(ids) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    weights = torch.bincount(labels, minlength=len(PACKAGES)).float() ** -0.5
    for _ in range(EPOCHS):
        for picked in torch.randperm(len(ids)).split(BATCH):
            loss = nn.functional.cross_entropy(model(ids[picked]), labels[picked], weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    ids, labels = corpus()
    first = int(len(ids) * TEST_SHARE)
    test, rest = slice(0, first), slice(first, None)
    model = Classifier()
    train(model, torch.from_numpy(ids[rest]), torch.from_numpy(labels[rest]))
    model.eval()
    with torch.no_grad():
        hits = model(torch.from_numpy(ids[test])).argmax(1).numpy() == labels[test]
    print(f"{len(ids)} sentences, {first} of them for the test: accuracy {hits.mean():.4f}")
    calibration = ids[rest][:CALIBRATION]
    np.savez_compressed(folder / "text.npz", test=ids[test], labels=labels[test], calibration=calibration)
    torch.onnx.export(
        model, (torch.from_numpy(ids[:1]),), str(folder / "text.onnx"), input_names=["ids"], output_names=["logits"],
        dynamic_axes={"ids": {0: "batch"}, "logits": {0: "batch"}}, opset_version=17, dynamo=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
