#!/bin/bash
# Installs what is missing, builds every preset that tests run under, and runs the tests: under the sanitizers (asan:
# address and undefined; tsan: threads) those that are labelled unit and integration, in release all of them. Ends
# with ctest's summary; stops at the first preset that fails.
#
# The tests of tests/compose need Docker and Compose, and are skipped where those are not there, unless ESPALIER_REQUIRE
# is "docker". As root they build the base image too, where it can't be pulled (deploy/base-image.sh).
#
#   tests/run.sh [--preset NAME]...     only these: asan, tsan, release or dev
set -euo pipefail
cd "$(dirname "$0")/.."

presets=()
while [ $# -gt 0 ]; do
  case $1:${2:-} in
  --preset:asan | --preset:tsan | --preset:release | --preset:dev) presets+=("$2") ;;
  *)
    echo "usage: tests/run.sh [--preset asan|tsan|release|dev]..." >&2
    exit 2
    ;;
  esac
  shift 2
done
[ "${#presets[@]}" -gt 0 ] || presets=(asan tsan release)

deploy/deps.sh

# The thread sanitizer of GCC 12 can't work with as much address randomisation as newer kernels use.
fixed=()
if [ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 0)" -gt 28 ]; then
  fixed=(setarch "$(uname -m)" -R)
fi

for preset in "${presets[@]}"; do
  echo "run.sh: $preset"
  cmake --preset "$preset" >/dev/null
  cmake --build "build/$preset" -- --quiet
  only=()
  case $preset in
  asan | tsan) only=(-L '^(unit|integration)$') ;;
  esac
  "${fixed[@]}" ctest --preset "$preset" --parallel 2 --no-tests=error "${only[@]}"
  sed -n 's/^skipped: /run.sh: tests\/compose was skipped: /p' "build/$preset/Testing/Temporary/LastTest.log"
done
