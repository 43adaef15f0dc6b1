#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the tests need, builds everything into build/ci and runs every test.
# usage: tests/run.sh [--sanitize]
#   --sanitize            the same for the AddressSanitizer and UBSan build, in build/asan
#   MOR_TEST_SANITIZE=1   after the normal run, also run the core tests of the sanitizer build
# The last line is "N passed, N failed, N skipped"; the status is 0 only if everything built and nothing failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
exec </dev/null

PACKAGES=(cmake ninja-build g++ clang libeigen3-dev catch2 libbenchmark-dev libcli11-dev nlohmann-json3-dev libomp-dev
          python3 python3-numpy ccache dict-jargon libclang-rt-14-dev libcpp-httplib-dev pkg-config)
BROWSER=chromium-headless-shell  # shows the server's page to a test; 100 MB. Not every distribution has it
CORE_TARGETS=(core math io policy)  # what MOR_TEST_SANITIZE=1 adds: folders whose sanitizer build takes a minute or two
passed=0 failed=0 skipped=0

# Installs what is missing of the packages named: all of it or nothing.
install_packages() {
  local missing=() package
  command -v dpkg-query >/dev/null || { echo "No dpkg here: install by hand what is missing of: $*"; return; }
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "Installing: ${missing[*]}"
    if apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
      return
    fi
  fi
  echo "Not installed, going on without: ${missing[*]}"
}

# Configures preset $1, builds targets $2... (default: all of them), as far as possible; a failed build counts as one failure.
build() {
  local preset=$1 jobs
  shift
  jobs=$(nproc)
  echo "== $preset: configure"
  if ! cmake --preset "$preset"; then
    failed=$((failed + 1))
    return 1
  fi
  echo "== $preset: build with $jobs jobs"
  if ! cmake --build "build/$preset" --parallel "$jobs" ${1+--target "$@"} -- -k 0; then
    echo "FAILED: build of preset $preset"
    failed=$((failed + 1))
  fi
}

# Runs the tests of preset $1, with further arguments for ctest, and adds their counts.
run_tests() {
  local preset=$1 report
  shift
  report="$PWD/build/$preset/test-report.xml"
  rm -f "$report"
  echo "== $preset: test"
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --parallel "$(nproc)" --output-junit "$report" "$@"
  local status=$?
  if [ ! -s "$report" ]; then
    failed=$((failed + 1))
    return
  fi
  local run bad left
  read -r run bad left < <(python3 tests/support/count_results.py "$report")
  [ "$status" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
  passed=$((passed + run)) failed=$((failed + bad)) skipped=$((skipped + left))
}

sanitize=0
case "${1:-}" in
  "") ;;
  --sanitize) sanitize=1 ;;
  *) echo "usage: tests/run.sh [--sanitize]" >&2; exit 2 ;;
esac

start=$SECONDS
install_packages "${PACKAGES[@]}"
install_packages "$BROWSER"
if [ "$sanitize" -eq 1 ]; then
  build asan && run_tests asan
else
  build ci && run_tests ci
  if [ "${MOR_TEST_SANITIZE:-0}" = 1 ]; then
    targets=()
    for folder in "${CORE_TARGETS[@]}"; do
      compgen -G "tests/$folder/test_*.cpp" >/dev/null && targets+=("mor_test_$folder")
    done
    [ ${#targets[@]} -gt 0 ] && build asan "${targets[@]}" && run_tests asan -L "^($(IFS='|'; echo "${CORE_TARGETS[*]}"))\$"
  fi
fi
echo "Total time: $((SECONDS - start)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
