"""Where the INT8 benches keep their files, and how many sentences are tested and calibrated on."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "int8"
SENTENCES = FOLDER / "sentences.npz"  # token ids and masks, the tested ones first
SENTENCES_TESTED, SENTENCES_CALIBRATING = 500, 200
