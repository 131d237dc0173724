"""Trains the bundled model: scikit-learn's 8x8 handwritten digits in, digits.onnx and digits_test.npz out.

A small convolutional network with batch normalisation, as it leaves training (the normalisations are kept as nodes).
Needs torch and scikit-learn; takes about a minute. The split and the seed are fixed, so a run repeats.

    python models/train_digits.py
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

FOLDER = Path(__file__).resolve().parent
EPOCHS = 60
BATCH = 64


def block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


def network() -> nn.Module:
    """[N, 1, 8, 8] pixels in 0..1 to [N, 10] logits."""
    features = [block(1, 32), block(32, 64), nn.MaxPool2d(2), block(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(64, 10))


def shifted(images: torch.Tensor) -> torch.Tensor:
    """The batch moved by up to one pixel in a random direction, the vacated edge black."""
    dy, dx = (int(v) for v in torch.randint(0, 3, (2,)))
    return nn.functional.pad(images, (1, 1, 1, 1))[:, :, dy : dy + 8, dx : dx + 8]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    steps = EPOCHS * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(model(shifted(images[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def export(model: nn.Module, file: Path) -> None:
    torch.onnx.export(
        model, (torch.zeros(1, 1, 8, 8),), str(file), input_names=["image"], output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}}, opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, dynamo=False,
    )  # fmt: skip


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the order of sums, and with it the result, does not depend on the machine's cores
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    split = train_test_split(images, labels.astype(np.int64), test_size=450, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = split
    model = network()
    train(model, torch.from_numpy(train_images), torch.from_numpy(train_labels))
    model.eval()
    with torch.no_grad():
        predicted = model(torch.from_numpy(test_images)).argmax(1).numpy()
    print(f"accuracy on {len(test_labels)} test images: {(predicted == test_labels).mean():.2%}")
    export(model, FOLDER / "digits.onnx")
    np.savez_compressed(FOLDER / "digits_test.npz", images=test_images, labels=test_labels)


if __name__ == "__main__":
    main()
