#!/usr/bin/env bash
# Checks and measures the CUDA backend on the device of this machine, from an unpacked bundle (deploy/bundle.sh).
#
#   gpu-check.sh --quick [ROW...]        checks of every kernel, the engine's tests on the device, figures (at most 8 min)
#   gpu-check.sh --peer FOLDER [ROW...]  figures beside vLLM, which FOLDER holds (site.tar.xz, bench_vllm.py)
#   gpu-check.sh --e2e [ARGUMENT...]     end-to-end tests on the device, by pytest (suite/tests/requirements.txt)
#   gpu-check.sh --sanitize              compute-sanitizer over the checks (memcheck, racecheck, synccheck, initcheck)
#
# Prints a line a check and ends with `N passed, N failed`; exits with 1 if one failed. Needs python3; --peer also what
# the peer needs, --sanitize the CUDA toolkit's compute-sanitizer.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export TESSERA_BUNDLE=$here
passed=0 failed=0

check() {
  local name=$1 log
  shift
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    printf 'ok      %-28s %s\n' "$name" "$(tail -1 "$log" | cut -c1-80)"
  else
    failed=$((failed + 1))
    printf 'FAILED  %-28s\n' "$name"
    grep -iE 'fail|error|mismatch' "$log" | head -20
    tail -5 "$log"
  fi
  rm -f "$log"
}

checks() { ls "$here"/gpu/*_check; }
mode=${1:---quick}
shift || true
case $mode in
  --quick)
    for program in $(checks); do check "$(basename "$program")" "$program"; done
    check "transformers" env TESSERA_BINARY="$here/tessera" python3 "$here/report/device_golden.py"
    check "engine on the device" env TESSERA_TEST_DEVICE=cuda "$here/tests/unit_scheduler_test"
    python3 "$here/report/report.py" gpu "$@"
    ;;
  --e2e)
    python3 -c 'import gguf, grpc_tools, openai, pytest, pytest_timeout' ||
      { echo "gpu-check: --e2e needs: pip install -r $here/suite/tests/requirements.txt" >&2; exit 2; }
    check "end to end" env TESSERA_TEST_DEVICE=cuda TESSERA_BINARY="$here/tessera" \
      python3 -m pytest -q -p no:cacheprovider --timeout 120 "$@" "$here/suite/tests/e2e"
    ;;
  --peer)
    peer=${1:?--peer wants the folder of the peer}
    shift
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    python3 -c "import tarfile, sys; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter='data')" \
      "$peer/site.tar.xz" "$work" || exit 2
    for kind in bf16 fp8; do
      PYTHONPATH=$work/site python3 -u "$peer/bench_vllm.py" $kind --mp --quick --budget 150 2>"$work/err" |
        tee -a "$work/vllm.txt" || tail -20 "$work/err"
    done
    python3 "$here/report/report.py" gpu "$@" --vllm "$work/vllm.txt"
    ;;
  --sanitize)
    logs=$(mktemp -d)
    trap 'rm -rf "$logs"' EXIT
    for program in $(checks); do
      for tool in memcheck racecheck synccheck initcheck; do
        # The tools keep one processor busy each, and the device little.
        while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
        (
          options=() arguments=()
          [ $tool != synccheck ] || options=(--num-cuda-barriers 65536)
          # Racecheck takes some 8 s for a case of this one, which has hundreds.
          [ "$tool $(basename "$program")" != "racecheck prefill_check" ] || arguments=(--only lengths late)
          [ "$(basename "$program")" != skinny_check ] || arguments=(--no-repeats)
          timeout 500 compute-sanitizer --tool $tool "${options[@]}" --error-exitcode 3 "$program" "${arguments[@]}" \
            >"$logs/$tool.$(basename "$program")" 2>&1
          echo $? >"$logs/$tool.$(basename "$program").rc"
        ) &
      done
    done
    wait
    for log in "$logs"/*_check; do
      check "$(basename "$log" | tr . ' ')" bash -c 'tail -40 "$1"; exit "$(cat "$1.rc")"' - "$log"
    done
    ;;
  *)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
