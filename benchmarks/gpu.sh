#!/usr/bin/env bash
# What only a GPU can show, in the order of its worth, each part by itself; some ten minutes in all.
#   benchmarks/gpu.sh [FOLDER]     FOLDER (default out/gpu) gets the weights and the reports
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/gpu}
mkdir -p "$out"
python=${PYTHON:-python}

echo "== tests"
"$python" -m pytest -q -m gpu 2>&1 | tee "$out/tests.txt"

echo "== FlashVSR, full size, random weights"
{
    "$python" benchmarks/flashvsr.py --compile
    "$python" benchmarks/flashvsr.py --sparse-ratio 1.5 --chunks 4
    "$python" benchmarks/flashvsr.py --decoder full --output 768x1408 --chunks 3
} 2>&1 | tee "$out/flashvsr.txt"

echo "== block-sparse attention"
"$python" benchmarks/attention.py --quick --backward 2>&1 | tee "$out/attention.txt"
"$python" benchmarks/attention.py --sweep 2>&1 | tee "$out/attention_sweep.txt"
"$python" benchmarks/attention.py 2>&1 | tee "$out/attention_all.txt"

echo "== one-step methods, full size, random weights"
for method in osediff adcsr invsr s3diff; do
    files=$("$python" benchmarks/random_weights.py "$method" -o "$out/$method" --size full | tail -1)
    # shellcheck disable=SC2086  # the line holds options
    "$python" benchmarks/one_step.py ${files#restore image IN } --device cuda --runs 5 \
        --output 512x512 2048x2048 2>&1 | tee "$out/$method.txt"
done
files="--weights $out/osediff/osediff.pkl --base $out/osediff/sd21"
# shellcheck disable=SC2086
{
    "$python" benchmarks/one_step.py $files --device cuda --dtype bf16 --runs 5 --output 512x512
    "$python" benchmarks/one_step.py $files --device cuda --output 4096x4096
    "$python" benchmarks/one_step.py $files --device cuda --dtype fp32 --output 2048x2048 --seams
} 2>&1 | tee "$out/osediff_more.txt"
