#!/usr/bin/env bash
# Builds llama.cpp, the peer of the CPU figures, from the Python source package llama-cpp-python.
#
#   tests/bench/build_peer.sh DIR
#
# Afterwards DIR/native/bin, DIR/avx512/bin and DIR/avx2/bin each hold llama-bench, llama-batched-bench,
# llama-quantize, llama-perplexity and llama-completion. The three differ in libggml-cpu alone: `native` is what
# the compiler finds on this processor, the others fix the instruction set. Running it again builds what is missing.
#
# NINJA (default "ninja") and JOBS (default: every core) say how to build; PEER_SOURCE names an unpacked
# llama-cpp-python source tree, so that nothing is fetched.
set -euo pipefail

if [ $# -ne 1 ] || [ "${1:0:1}" = "-" ]; then
  sed -n '2,11p' "$0" | sed 's/^# \{0,1\}//' >&2
  exit 2
fi
version=0.3.36
mkdir -p "$1"
dir=$(cd "$1" && pwd)
read -r -a ninja <<<"${NINJA:-ninja}"
jobs=${JOBS:-$(nproc)}
targets=(llama-bench llama-batched-bench llama-quantize llama-perplexity llama-completion)

source_tree=${PEER_SOURCE:-$dir/llama_cpp_python-$version}
if [ ! -d "$source_tree/vendor/llama.cpp" ]; then
  echo "build_peer: fetching llama-cpp-python $version"
  # The source archive alone: --no-binary for this package, and nothing that it depends on.
  python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python -d "$dir" \
    "llama-cpp-python==$version"
  archive=$dir/llama_cpp_python-$version.tar.gz
  [ -f "$archive" ] || { echo "build_peer: $archive was not fetched; check the package index" >&2; exit 1; }
  tar xzf "$archive" -C "$dir"
fi
llama=$source_tree/vendor/llama.cpp

common=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF)
avx2=(-DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON
      -DGGML_BMI2=ON)
avx512=("${avx2[@]}" -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON)

# GCC 12 declares the AMX tile intrinsics in a form that clobbers no tile register, so llama.cpp's AMX path computes
# garbage. On such a processor the native build is made without AMX unless PEER_AMX_HEADER names a corrected header.
native=(-DGGML_NATIVE=ON)
if [ -n "${PEER_AMX_HEADER:-}" ]; then
  native+=("-DCMAKE_CXX_FLAGS=-include $PEER_AMX_HEADER")
fi

build() {  # build NAME TARGETS -- FLAGS
  local name=$1; shift
  local wanted=()
  while [ "$1" != "--" ]; do wanted+=("$1"); shift; done
  shift
  [ -f "$dir/build-$name/build.ninja" ] || cmake -S "$llama" -B "$dir/build-$name" "${common[@]}" "$@" >"$dir/build-$name.cmake.log"
  "${ninja[@]}" -C "$dir/build-$name" -j "$jobs" "${wanted[@]}"
}

build native "${targets[@]}" -- "${native[@]}"
mkdir -p "$dir/native"
cp -a "$dir/build-native/bin" "$dir/native/"
for name in avx512 avx2; do
  if [ "$name" = avx512 ]; then flags=("${avx512[@]}"); else flags=("${avx2[@]}"); fi
  build "$name" ggml-cpu -- "${flags[@]}"
  mkdir -p "$dir/$name"
  cp -a "$dir/native/bin" "$dir/$name/"
  cp -a "$dir/build-$name"/bin/libggml*.so* "$dir/$name/bin/"
done
# The programs find their libraries beside themselves, so a copied folder stays whole.
for name in native avx512 avx2; do
  if [ "$name" = avx512 ] && ! grep -q avx512_bf16 /proc/cpuinfo; then
    echo "avx512: $dir/avx512/bin (this processor cannot run it)"
    continue
  fi
  printf '%s: ' "$name"
  LD_LIBRARY_PATH=$dir/$name/bin "$dir/$name/bin/llama-bench" --help >/dev/null && echo "$dir/$name/bin"
done
