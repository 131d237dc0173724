#!/bin/bash
# The error of every model of the zoo, untuned, in several precisions. $1: the output folder; the rest: precisions.
out=${1:-/tmp/gpu_errors}
shift
mkdir -p "$out"
export PYTHONUNBUFFERED=1 REDLINE_CACHE_DIR=/tmp/redline-cache
for precision in ${*:-fp16 tf32 bf16}; do
    for model in digits:4 minilm:4 mobilenetv2:1 resnet50:1 bert_base:1 vit_b16:1 yolov5s:1; do
        timeout 60 python3 bench/gpu_models.py --out "$out" --opt 0 --precision "$precision" $model 2>&1 | grep '^{' | cut -c1-300
    done
done
