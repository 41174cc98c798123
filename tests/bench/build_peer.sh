#!/usr/bin/env bash
# Builds llama.cpp, the peer of the CPU figures, from the Python source package llama-cpp-python.
#
#   tests/bench/build_peer.sh DIR [PACK]
#
# Afterwards DIR/native/bin, DIR/amx/bin, DIR/avx512/bin and DIR/avx2/bin each hold llama-bench, llama-batched-bench,
# llama-quantize, llama-perplexity and llama-completion. They differ in libggml-cpu alone: `native` is what the
# compiler finds on this processor, the others fix the instruction set, whatever this processor has. `amx` is made where
# PEER_AMX_HEADER names a header that mends GCC 12's tile intrinsics (it is included first), and so is the AMX part of
# `native`. Running it again builds what is missing. PACK: a tar.xz of amx, avx512 and avx2 for another machine, what
# they share in it once.
#
# NINJA (default "ninja") and JOBS (default: every core) say how to build; PEER_SOURCE names an unpacked
# llama-cpp-python source tree, so that nothing is fetched.
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${1:0:1}" = "-" ]; then
  sed -n '2,15p' "$0" | sed 's/^# \{0,1\}//' >&2
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

amx=("${avx512[@]}" -DGGML_AVX_VNNI=ON -DGGML_AMX_TILE=ON -DGGML_AMX_INT8=ON -DGGML_AMX_BF16=ON)
native=(-DGGML_NATIVE=ON)
sets=(avx512 avx2)
if [ -n "${PEER_AMX_HEADER:-}" ]; then
  native+=("-DCMAKE_CXX_FLAGS=-include $PEER_AMX_HEADER")
  amx+=("-DCMAKE_CXX_FLAGS=-include $PEER_AMX_HEADER")
  sets=(amx "${sets[@]}")
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
for name in "${sets[@]}"; do
  declare -n flags=$name
  build "$name" ggml-cpu -- "${flags[@]}"
  mkdir -p "$dir/$name"
  cp -a "$dir/native/bin" "$dir/$name/"
  cp -a "$dir/build-$name"/bin/libggml*.so* "$dir/$name/bin/"
done

# The programs find their libraries beside themselves, so a copied folder stays whole.
declare -A needs=([native]=sse [avx2]=avx2 [avx512]=avx512_bf16 [amx]=amx_int8)
for name in native "${sets[@]}"; do
  if ! grep -q "${needs[$name]}" /proc/cpuinfo; then
    echo "$name: $dir/$name/bin (this processor cannot run it)"
    continue
  fi
  printf '%s: ' "$name"
  LD_LIBRARY_PATH=$dir/$name/bin "$dir/$name/bin/llama-bench" --help >/dev/null && echo "$dir/$name/bin"
done

if [ $# -eq 2 ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  for name in "${sets[@]}"; do
    cp -a "$dir/$name" "$work/"
    cp -L "$(ldd "$dir/$name/bin/libggml-cpu.so" | awk '/libgomp/ { print $3 }')" "$work/$name/bin/"
    find "$work/$name/bin" -type f ! -name '*.sh' -exec strip --strip-unneeded {} +
    for file in "$work/$name"/bin/*; do
      first=$work/${sets[0]}/bin/${file##*/}
      if [ -f "$file" ] && [ ! -L "$file" ] && [ "$name" != "${sets[0]}" ] && cmp -s "$file" "$first"; then
        ln -f "$first" "$file"
      fi
    done
  done
  tar -C "$work" -cf - "${sets[@]}" | xz -T1 -6 >"$2"
  printf '%s: %.1f MiB\n' "$2" "$(echo "$(stat -c %s "$2") / 1048576" | bc -l)"
fi
