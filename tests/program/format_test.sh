#!/bin/sh
# Every C file is as clang-format would write it.
#
#   tests/program/format_test.sh
set -eu
cd "$(dirname "$0")/../.."
find base wire formats server client tests -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run -Werror
