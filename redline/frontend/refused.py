"""Operators that Redline refuses by decision, with the reason and what a user can do instead."""

_SEQUENCES = "sequences and optionals are values whose number or shape is only known at run time"
_STRINGS = "text is not a tensor that kernels compute with"
_RANDOM = "an engine gives the same answer to the same input"
_FIX = "fix shapes and flags (--shapes, --freeze) and simplify the model before the build"
_HOST = "do it before the engine is called, and cut it off the model with onnx.utils.extract_model"

_GROUPS = (
    (
        "ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty "
        "SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence",
        _SEQUENCES, _FIX,
    ),
    ("RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer", _STRINGS, _HOST),
    (
        "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike", _RANDOM,
        "make the random tensor an input of the model",
    ),
    ("ImageDecoder", "image files are not tensors", _HOST),
)  # fmt: skip

REFUSED = {op: (reason, remedy) for names, reason, remedy in _GROUPS for op in names.split()}
