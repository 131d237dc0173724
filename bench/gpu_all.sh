#!/bin/bash
# The table of the GPU: every model tuned, checked, timed and profiled, with its peers. $1: the output folder; the rest: MODEL:BATCH.
# PRECISION: fp16, int8, fp8 and the like; OPT: how hard to tune; MORE: further options of gpu_models.py.
out=${1:-/tmp/gpu_all}
shift
mkdir -p "$out"
export PYTHONUNBUFFERED=1 REDLINE_CACHE_DIR=/tmp/redline-cache
precision=${PRECISION:-fp16}
[ "$precision" = int8 ] || [ "$precision" = fp8 ] || peers=--peers
models=${*:-resnet50:1 bert_base:1 mobilenetv2:1 vit_b16:1 resnet50:128 bert_base:32 vit_b16:32 mobilenetv2:128}
for model in $models; do
    timeout 170 python3 bench/gpu_models.py --out "$out" --opt "${OPT:-4}" --precision "$precision" --top "${TOP:-8}" $peers $MORE \
        --check-up-to 128 $model 2>&1 | tail -n 24 | cut -c1-400
    cat "$out/rows_$precision.json" >> "$out/rows.jsonl" && echo >> "$out/rows.jsonl"
done
