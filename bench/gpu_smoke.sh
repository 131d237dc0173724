#!/bin/bash
# Every zoo model untuned, then two of them tuned and profiled: the first thing to run on a new GPU. $1: the output folder.
out=${1:-/tmp/gpu_smoke}
mkdir -p "$out"
export PYTHONUNBUFFERED=1 REDLINE_CACHE_DIR=/tmp/redline-cache
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv,noheader
python3 -c "import cuda.bindings, triton, onnxruntime, numpy; print(cuda.bindings.__version__, triton.__version__, onnxruntime.__version__, numpy.__version__)"
python3 -c "import typer, rich, ml_dtypes" || true
for model in digits:2 mobilenetv2:1 resnet50:1 bert_base:1 vit_b16:1 minilm:2 yolov5s:1; do
    timeout 60 python3 bench/gpu_models.py --out "$out" --opt 0 $model 2>&1 | tail -n 12
done
timeout 90 python3 bench/gpu_models.py --out "$out" --opt 3 --top 14 resnet50:1 2>&1 | tail -n 40
timeout 90 python3 bench/gpu_models.py --out "$out" --opt 3 --top 8 bert_base:1 2>&1 | tail -n 40
