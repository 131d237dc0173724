"""The helpers of this folder are imported by their names."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

if importlib.util.find_spec("triton") is None:  # importing it here would start it without its interpreter
    collect_ignore_glob = ["test_*.py"]
