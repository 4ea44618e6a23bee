#!/bin/bash
# clang-tidy (.clang-tidy says which checks) has nothing to say of any C file of ours.
#
#   tests/program/tidy_test.sh BUILD     whose compile_commands.json and generated headers it takes
set -euo pipefail
cd "$(dirname "$0")/../.."
find base wire formats server client -name '*.c' -print0 |
  xargs -0 -P 2 -n 1 clang-tidy --quiet -p "$1" 2> >(grep -v ' warnings\? generated\.$' >&2)
