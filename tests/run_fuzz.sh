#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzzing programs tests/fuzz/fuzz_*.cpp (libFuzzer, AddressSanitizer, UBSan) and runs each for a while.
# usage: tests/run_fuzz.sh [--seconds N] [--seed N] [--out DIR] [TARGET...]
#   --seconds N   time for each target (default 60)
#   --seed N      of the inputs (default: another one each time); with one, a run repeats the last one as far as it gets
#   --out DIR     programs, corpora and what fails (default build/fuzz); a corpus that is there is used and grows
#   TARGET        such as fuzz_tokenizer_json (default: all)
# The status is 0 when nothing was found, 77 when there is no clang++ with libFuzzer, otherwise 1. An input that fails
# is left in DIR/TARGET.failure-*; DIR/TARGET FILE runs it again.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

seconds=60 seed=0 out=build/fuzz targets=()
while [ $# -gt 0 ]; do
  case "$1" in
    --seconds) seconds=${2:?"--seconds needs a number"}; shift 2 ;;
    --seed) seed=${2:?"--seed needs a number"}; shift 2 ;;
    --out) out=${2:?"--out needs a folder"}; shift 2 ;;
    fuzz_*) targets+=("$1"); shift ;;
    *) sed -n 's/^# \(usage: .*\)/\1/p' "$0" >&2; exit 2 ;;
  esac
done
if [ ${#targets[@]} -eq 0 ]; then
  for source in tests/fuzz/fuzz_*.cpp; do targets+=("$(basename "$source" .cpp)"); done
fi

compiler=${MOR_FUZZ_CXX:-clang++}
mkdir -p "$out" || exit 1
probe='extern "C" int LLVMFuzzerTestOneInput(unsigned char const*, unsigned long) { return 0; }'
if ! printf '%s\n' "$probe" | "$compiler" -fsanitize=fuzzer -x c++ - -o "$out/.probe.$$" 2>/dev/null; then
  echo "skipped: no $compiler with libFuzzer (Debian: clang, libclang-rt-14-dev)"
  exit 77
fi
rm -f "$out/.probe.$$"
cache=$(command -v ccache)
flags=(-std=c++20 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
       -D_GLIBCXX_ASSERTIONS -I include -I tests -I examples)

run_target() {
  local name=$1 status
  $cache "$compiler" "${flags[@]}" -fsanitize=fuzzer-no-link -c "tests/fuzz/$name.cpp" -o "$out/$name.o" &&
    "$compiler" "${flags[@]}" -fsanitize=fuzzer "$out/$name.o" -o "$out/$name" || return 1
  rm -rf "$out/$name.seeds"
  mkdir -p "$out/$name.corpus"
  python3 tests/fuzz/seeds.py "$name" "$out/$name.seeds" || return 1
  local folders=("$out/$name.corpus" "$out/$name.seeds") more=()
  [ -d "tests/fuzz/corpus/$name" ] && folders+=("tests/fuzz/corpus/$name")  # what failed once
  [ -f "tests/fuzz/$name.dict" ] && more+=("-dict=tests/fuzz/$name.dict")
  ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
    "$out/$name" "${folders[@]}" "${more[@]}" -seed="$seed" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 \
    -artifact_prefix="$out/$name.failure-" -print_final_stats=1 >"$out/$name.log" 2>&1
  status=$?
  if [ $status -ne 0 ]; then
    tail -n 60 "$out/$name.log"
    echo "FAILED: $name (status $status)"
    return 1
  fi
  echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$name.log") runs, nothing found"
}

failed=0
for name in "${targets[@]}"; do run_target "$name" || failed=1; done
exit $failed
