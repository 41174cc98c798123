#!/usr/bin/env bash
# The one test command. Its last line is always `N passed, N failed, N skipped`, over everything that it ran.
#
#   tests/run.sh            packages, release build, lint, C++ tests, golden tests, end-to-end tests
#   tests/run.sh --quick    incremental build, unit tests, lint
#   tests/run.sh --all      also a device's models end to end, ASan+UBSan, TSan (config to scheduler), fuzz targets a while
#   tests/run.sh --goldens  makes the golden files again with torch and transformers, and compares them
#
# Environment: JOBS (default: every core), TESSERA_TEST_DATA (folder of real test data; tests that need it are skipped
# without it), TESSERA_FUZZ_SECONDS (a target, default 20), TESSERA_FUZZ_RUNS (instead of seconds: that many inputs).
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
mode=default
case ${1:-} in
  "") ;;
  --all | --quick | --goldens) mode=${1#--} ;;
  -h | --help) sed -n '2,10p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
  *) echo "run.sh: unknown argument '$1'; see tests/run.sh --help" >&2; exit 2 ;;
esac
jobs=${JOBS:-$(nproc)}
reports=$root/build/reports
mkdir -p "$reports"
passed=0 failed=0 skipped=0
steps=()

count() { passed=$((passed + $1)); failed=$((failed + $2)); skipped=$((skipped + $3)); }

finish() {
  printf '\n'
  printf '%s\n' "${steps[@]+"${steps[@]}"}"
  if [ $((passed + failed)) -eq 0 ]; then
    echo "run.sh: no test ran" >&2
    failed=1
  fi
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
}

# step NAME COMMAND...: runs it in this shell, and notes its time and what it counted.
step() {
  local name=$1 start=$SECONDS p=$passed f=$failed s=$skipped
  shift
  printf '\n=== %s\n' "$name"
  "$@"
  local status=$?
  steps+=("$(printf '%-22s %5d s  %5d passed %4d failed %4d skipped' "$name" $((SECONDS - start)) \
             $((passed - p)) $((failed - f)) $((skipped - s)))")
  return $status
}

# count_junit FILE: adds the counts of a JUnit report; a report that is missing or empty counts as `$2` (default: one failure).
count_junit() {
  local counts
  counts=$(python3 - "$1" 2>/dev/null <<'PY'
import sys, xml.etree.ElementTree as tree
cases = list(tree.parse(sys.argv[1]).getroot().iter("testcase"))
failed = sum(any(c.tag in ("failure", "error") for c in case) or case.get("status") == "fail" for case in cases)
skipped = sum(any(c.tag == "skipped" for c in case) or case.get("status") in ("notrun", "disabled") for case in cases)
print(len(cases) - failed - skipped, failed, skipped)
PY
  ) || counts=${2:-0 1 0}
  # shellcheck disable=SC2086
  count $counts
}

packages() {
  local groups=(build)
  [ "$mode" = all ] && groups+=(test)
  deploy/install-deps.sh --check "${groups[@]}" 2>/dev/null || deploy/install-deps.sh "${groups[@]}" ||
    { count 0 1 0; return 1; }
}

# build PRESET [TARGET...]: without targets, everything.
build() {
  local preset=$1 log=$reports/build-$1.log
  shift
  if [ ! -f "build/$preset/build.ninja" ]; then
    cmake --preset "$preset" >"$log" 2>&1 || { tail -n 30 "$log"; count 0 1 0; return 1; }
  fi
  ninja -C "build/$preset" -j "$jobs" "$@" >"$log" 2>&1 ||
    { grep -E -A 12 '^FAILED|error:|undefined' "$log" | head -n 60; count 0 1 0; return 1; }
  tail -n 1 "$log"
}

# test_targets PRESET PATTERN: the test programs of a build whose name matches.
test_targets() {
  ninja -C "build/$1" -t targets all 2>/dev/null | sed -n 's/^\([a-z_0-9]*\): .*$/\1/p' | grep -E "$2" | sort -u
}

# cpp_tests PRESET [PATTERN]: runs the C++ tests whose name matches, without address randomization, which the
# sanitizers of GCC 12 cannot take on new kernels.
cpp_tests() {
  local preset=$1 pattern=${2:-.} report=$reports/ctest-$1.xml
  rm -f "$report"
  ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 \
    TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
    setarch "$(uname -m)" -R ctest --test-dir "build/$preset" -R "$pattern" -j "$jobs" --timeout 600 \
    --output-on-failure --output-junit "$report" >"$reports/ctest-$preset.log" 2>&1
  local status=$? before=$failed
  [ $status -eq 0 ] || grep -v -E ' +Passed +[0-9.]+ sec|^ +Start +[0-9]+:' "$reports/ctest-$preset.log" | head -n 150
  grep -q 'No tests were found' "$reports/ctest-$preset.log" &&
    { echo "no C++ test matches '$pattern'"; count 0 1 0; return 1; }
  tail -n 1 "$reports/ctest-$preset.log"
  count_junit "$report"
  # ctest reports a program that is missing as not run, which is no skip.
  [ $status -eq 0 ] || [ "$failed" -gt "$before" ] || count 0 1 0
  return $status
}

lint() {
  local line self
  self=$(python3 tests/lint/lint_test.py 2>&1)
  if [ $? -eq 0 ]; then
    count "$(sed -n 's/^Ran \([0-9]*\) tests.*/\1/p' <<<"$self")" 0 0
  else
    echo "$self"
    count 0 1 0
  fi
  python3 tests/lint/lint.py --jobs "$jobs" | tee "$reports/lint.log" | grep -v ': warning: '
  line=$(tail -n 1 "$reports/lint.log")
  if [[ $line =~ ^lint:\ ([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    count "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "${BASH_REMATCH[3]}"
  else
    count 0 1 0
  fi
}

# venv FOLDER REQUIREMENTS: a virtual environment with the named packages, made again when the list changes.
venv() {
  local folder=$1 list=$2
  if [ -x "$folder/bin/python" ] && cmp -s "$list" "$folder/installed.txt"; then return 0; fi
  python3 -m venv "$folder" && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$list" &&
    cp "$list" "$folder/installed.txt"
}

# python_tests NAME FOLDER [ARGUMENT...]: pytest over a folder, with the release binary unless TESSERA_BINARY names one.
python_tests() {
  local name=$1 folder=$2 report=$reports/pytest-$1.xml
  shift 2
  compgen -G "$folder/test_*.py" >/dev/null || { echo "no tests in $folder"; return 0; }
  venv .venv tests/requirements.txt ||
    { echo "the Python packages of tests/requirements.txt could not be installed"; count 0 1 0; return 1; }
  rm -f "$report"
  TESSERA_BINARY=${TESSERA_BINARY:-$root/build/release/tessera} .venv/bin/python -m pytest -q -ra -p no:cacheprovider \
    --junitxml "$report" "$@" "$folder"
  local status=$? before=$failed
  count_junit "$report"
  [ $status -eq 0 ] || [ "$failed" -gt "$before" ] || count 0 1 0
  return $status
}

# fuzz_one TARGET: prints what came of it.
fuzz_one() {
  local target=$1 name corpus log limit=-max_total_time=${TESSERA_FUZZ_SECONDS:-20}
  [ -z "${TESSERA_FUZZ_RUNS:-}" ] || limit=-runs=$TESSERA_FUZZ_RUNS
  name=$(basename "$target")
  corpus=build/asan/corpus/$name
  log=$reports/$name.log
  mkdir -p "$corpus" "$reports/findings"
  if [ -d "tests/fuzz/corpus/$name" ]; then cp -n tests/fuzz/corpus/"$name"/* "$corpus"/; fi
  if setarch "$(uname -m)" -R "$target" "$limit" -rss_limit_mb=3000 -timeout=20 -print_final_stats=1 \
      -artifact_prefix="$reports/findings/$name-" "$corpus" >"$log" 2>&1; then
    echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, no finding"
  else
    tail -n 40 "$log"
    echo "$name: a finding; the input is in $reports/findings"
  fi
}

# A target a core: each is one thread.
fuzz() {
  local targets=() said
  mapfile -t targets < <(find build/asan/fuzz -maxdepth 1 -type f -executable -name '*_fuzz' | sort)
  export reports
  export -f fuzz_one
  said=$(printf '%s\n' "${targets[@]}" | xargs -r -P "$jobs" -I{} bash -c 'fuzz_one {}')
  echo "$said"
  local sound
  sound=$(grep -c ': [0-9]* inputs, no finding$' <<<"$said")
  count "$sound" $((${#targets[@]} - sound)) 0
}

goldens() {
  venv .cache/venv-golden tests/golden/requirements.txt ||
    { echo "the Python packages of tests/golden/requirements.txt could not be installed"; count 0 1 0; return 1; }
  local maker
  for maker in make_goldens make_scoring_goldens; do
    if .cache/venv-golden/bin/python "tests/golden/$maker.py" --compare; then count 1 0 0; else count 0 1 0; fi
  done
}

sanitized() {
  if step "asan build" build asan; then
    step "asan tests" cpp_tests asan
    TESSERA_BINARY=$root/build/asan/tessera step "asan end to end" python_tests asan-e2e tests/e2e -m "not timing"
    step "fuzz" fuzz
  fi
  step "tsan configure" build tsan help >/dev/null
  local wanted='^(unit_(config|kernels|kvcache|blockzoo|scheduler)|property|kernels)_test$' targets
  mapfile -t targets < <(test_targets tsan "$wanted")
  if [ ${#targets[@]} -gt 0 ] && step "tsan build" build tsan "${targets[@]}"; then
    step "tsan tests" cpp_tests tsan "${wanted/_test\$/\\.}"
  fi
}

if [ "$mode" = goldens ]; then
  step "goldens" goldens
  finish
  exit
fi
if ! step "packages" packages; then
  finish
  exit 1
fi
step "release build" build release
built=$?
step "lint" lint
if [ $built -eq 0 ]; then
  if [ "$mode" = quick ]; then
    step "unit tests" cpp_tests release '^unit_'
  else
    step "C++ tests" cpp_tests release
    step "golden tests" python_tests golden tests/golden
    step "end to end" python_tests e2e tests/e2e
  fi
fi
if [ "$mode" = all ]; then
  [ $built -ne 0 ] || TESSERA_TEST_MODELS=device step "end to end, wide" python_tests e2e-wide tests/e2e
  sanitized
fi
finish
