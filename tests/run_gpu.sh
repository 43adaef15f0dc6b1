#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the tests of the CUDA backend into build/gpu and runs them on this machine's GPU.
# usage: tests/run_gpu.sh [--sanitize]
#   --sanitize   afterwards the reduced suite ([quick] in the tests) under compute-sanitizer: memcheck, racecheck,
#                initcheck, synccheck
# The status is 0 only if everything built and nothing failed; without a GPU it says so and fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

sanitize=0
case "${1:-}" in
  "") ;;
  --sanitize) sanitize=1 ;;
  *) echo "usage: tests/run_gpu.sh [--sanitize]" >&2; exit 2 ;;
esac

if ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
  echo "No GPU here (nvidia-smi lists none)" >&2
  exit 1
fi
cmake --preset gpu -DMOR_BUILD_EXAMPLES=OFF || exit 1
cmake --build build/gpu --parallel "$(nproc)" --target mor_test_cuda || exit 1
ctest --test-dir build/gpu --label-regex '^cuda$' --no-tests=error --output-on-failure --parallel 4
status=$?
if [ "$sanitize" -eq 1 ]; then
  for tool in memcheck racecheck initcheck synccheck; do
    echo "== $tool"
    # racecheck does not follow values that cp.async brings and an mbarrier announces: it reports each as a race.
    skip=()
    [ "$tool" = racecheck ] && skip=(--kernel-name-exclude kernel_substring=attention_key_gradient_kernel)
    compute-sanitizer --tool "$tool" "${skip[@]}" --error-exitcode 1 build/gpu/tests/mor_test_cuda '[quick]' || status=1
  done
fi
exit "$status"
