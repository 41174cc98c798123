#!/usr/bin/env bash
# Packs a build into one relocatable tarball: program, tests, benches, checks of device code, and the libraries that they
# need, for another x86-64 Linux host that has at most a driver (glibc of Debian 12 or later).
#
#   deploy/bundle.sh [--cpu] [--slim] [--build DIR] [--tree DIR] [--out FILE]
#
# The build is the preset `cuda`, with --cpu the preset `release`; --build names another, which is then not built.
# --slim leaves cuBLASLt (517 MB) out: it is then taken from the toolkit of the host (the loader's path, /usr/local/cuda).
# --tree leaves the unpacked tree there. Unpacked: `gpu-check.sh` beside the programs checks and measures a device,
# `report/report.py cpu` the processor.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build= slim=no tree= out= preset=cuda
while [ $# -gt 0 ]; do
  case $1 in
    --cpu) preset=release ;;
    --slim) slim=yes ;;
    --build) build=$2; shift ;;
    --tree) tree=$2; shift ;;
    --out) out=$2; shift ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift
done

fail() {
  echo "bundle: $1" >&2
  echo "  fix: $2" >&2
  exit 1
}

if [ -z "$build" ]; then
  build=$root/build/$preset
  (cd "$root" && cmake --preset $preset && ninja -C "$build")
fi
[ -x "$build/tessera" ] || fail "$build/tessera is missing" "cmake --preset $preset && cmake --build build/$preset"
case $preset-$slim in
  release-*) slim=yes kind=cpu ;;
  cuda-yes) kind=cuda-slim ;;
  *) kind=cuda ;;
esac
out=${out:-$root/build/tessera-$kind.tar.xz}
kept=$tree
tree=${tree:-$(mktemp -d)}
[ -n "$kept" ] || trap 'rm -rf "$tree"' EXIT
rm -rf "${tree:?}"/*
mkdir -p "$tree/lib" "$tree/tests" "$tree/bench"

cp "$build/tessera" "$tree/"
find "$build/tests" -maxdepth 1 -type f -executable -name '*_test' -exec cp -t "$tree/tests" {} +
find "$build/bench" -maxdepth 1 -type f -executable -exec cp -t "$tree/bench" {} +
if [ $preset = cuda ]; then
  mkdir -p "$tree/gpu"
  find "$build/gpu" -maxdepth 1 -type f -executable -exec cp -t "$tree/gpu" {} +
  cp "$root/deploy/gpu-check.sh" "$tree/"
fi
mkdir -p "$tree/report"
cp "$root"/tests/bench/*.py "$root"/tests/support/*.py "$root"/tests/golden/{device_golden,tiny_llama,safetensors_file}.py "$tree/report/"
# The end-to-end tests, where they find what they read of the repository.
mkdir -p "$tree/suite/tests/golden/data"
cp -r "$root/proto" "$tree/suite/"
cp -r "$root/tests/e2e" "$root/tests/support" "$root/tests/requirements.txt" "$tree/suite/tests/"
cp "$root"/tests/golden/*.py "$tree/suite/tests/golden/"
cp -r "$root/tests/golden/data/chat_templates" "$tree/suite/tests/golden/data/"
find "$tree/suite" -name __pycache__ -prune -exec rm -r {} +

# Everything that the loader would take, but for the C library and what comes with the driver.
programs=$(find "$tree" -maxdepth 2 -type f -executable ! -name '*.sh' ! -name '*.py')
# shellcheck disable=SC2086
ldd $programs | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
  grep -vE '/(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libcuda)\.so' | while read -r library; do
    cp -L "$library" "$tree/lib/"
  done
# Of ICU's data (31 MB) only what normalization, properties of characters and boundaries need. The library is data and one
# symbol; without icu-devtools and a C compiler it is packed whole.
shrink_icu() {
  local data=$1 work keep name
  work=$(mktemp -d)
  name=$(nm -D "$data" | awk '/ icudt[0-9]+_dat$/ { print $3 }')
  objcopy -O binary --only-section=.rodata "$data" "$work/${name%_dat}l.dat"
  keep=$work/keep.txt
  mkdir "$work/items"
  icupkg -l "$work/${name%_dat}l.dat" |
    grep -E '^((brkitr/)?(root|res_index|pool)\.res|[a-z_0-9]+\.nrm|u[a-z]+\.icu|brkitr/.*\.(brk|dict))$' >"$keep"
  icupkg -d "$work/items" -x "$keep" "$work/${name%_dat}l.dat"
  icupkg -s "$work/items" -a "$keep" new "$work/kept.dat"
  printf '.section .rodata\n.balign 16\n.globl %s\n.type %s,@object\n%s:\n.incbin "%s"\n.size %s, .-%s\n%s\n' \
    "$name" "$name" "$name" "$work/kept.dat" "$name" "$name" '.section .note.GNU-stack,"",@progbits' >"$work/data.S"
  cc -shared -nostdlib -Wl,-soname,"$(basename "$data")" "$work/data.S" -o "$work/kept.so"
  cp "$work/kept.so" "$data"
  rm -rf "$work"
}
if command -v icupkg >/dev/null && command -v cc >/dev/null; then
  for data in "$tree"/lib/libicudata.so.*; do
    [ ! -f "$data" ] || shrink_icu "$data"
  done
fi
find "$tree" -type f \( -name '*.so*' -o -executable \) ! -name '*.sh' -exec strip --strip-unneeded {} + 2>/dev/null || true
if [ $slim = no ]; then
  lt=$(find -L /usr/local/cuda/lib64 /usr/local/cuda-13*/lib64 -maxdepth 1 -name 'libcublasLt.so.13' 2>/dev/null | head -1)
  [ -n "$lt" ] || fail "libcublasLt.so.13 was not found" "install CUDA toolkit 13, or pack with --slim"
  cp -L "$lt" "$tree/lib/"
fi
# The programs share most of their code: a dictionary that spans them keeps it once.
tar -C "$tree" -cf - . | xz -T1 --lzma2=preset=6,dict=512MiB >"$out"
printf '%s: %.1f MiB\n' "$out" "$(echo "$(stat -c %s "$out") / 1048576" | bc -l)"
