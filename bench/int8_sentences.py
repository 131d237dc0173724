"""700 sentences of Python's reference manual as MiniLM takes them: 500 to test, 200 to calibrate. Needs what zoo_export needs.

python bench/int8_sentences.py
"""

import numpy as np
import zoo_export
from int8_files import SENTENCES, SENTENCES_CALIBRATING, SENTENCES_TESTED


def main() -> None:
    tokenizer = zoo_export.tokenizers.Tokenizer.from_file(str(zoo_export.minilm_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(zoo_export.SEQUENCE)
    tokenizer.enable_padding(length=zoo_export.SEQUENCE)
    encoded = tokenizer.encode_batch(zoo_export.sentences(SENTENCES_TESTED + SENTENCES_CALIBRATING))
    assert len(encoded) == SENTENCES_TESTED + SENTENCES_CALIBRATING, f"the manual gives {len(encoded)} sentences"
    SENTENCES.parent.mkdir(parents=True, exist_ok=True)
    ids, mask = (np.array([getattr(e, name) for e in encoded], np.int64) for name in ("ids", "attention_mask"))
    np.savez_compressed(SENTENCES, input_ids=ids, attention_mask=mask)
    print(f"{SENTENCES}: {len(ids)} sentences")


if __name__ == "__main__":
    main()
