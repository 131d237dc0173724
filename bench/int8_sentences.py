"""700 sentences of Python's reference manual as MiniLM takes them: 500 to test, 200 to calibrate. Needs what zoo_export needs.

python bench/int8_sentences.py
"""

from pathlib import Path

import numpy as np
import zoo_export

FILE = Path(__file__).resolve().parent.parent / ".cache" / "int8" / "sentences.npz"
TEST, CALIBRATION = 500, 200


def main() -> None:
    tokenizer = zoo_export.tokenizers.Tokenizer.from_file(str(zoo_export.minilm_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(zoo_export.SEQUENCE)
    tokenizer.enable_padding(length=zoo_export.SEQUENCE)
    encoded = tokenizer.encode_batch(zoo_export.sentences(TEST + CALIBRATION))
    assert len(encoded) == TEST + CALIBRATION, f"the manual gives {len(encoded)} sentences"
    FILE.parent.mkdir(parents=True, exist_ok=True)
    ids, mask = (np.array([getattr(e, name) for e in encoded], np.int64) for name in ("ids", "attention_mask"))
    np.savez_compressed(FILE, input_ids=ids, attention_mask=mask)
    print(f"{FILE}: {len(ids)} sentences")


if __name__ == "__main__":
    main()
