#!/bin/bash
# The worker of README.md: takes it out, builds it against the libraries of a build directory, and has it fit its line on a real server.
#
#   tests/integration/readme_worker.sh BUILD_DIR
set -euo pipefail
build=$(realpath "$1")
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
server=
cleanup() {
  [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 143' INT TERM HUP
fail() {
  echo "readme_worker.sh: $*" >&2
  exit 1
}

# The C block after its marker.
awk '/^<!-- worker.c -->$/ { marked = 1; next } marked && /^```c$/ { code = 1; next } code && /^```$/ { exit } code' \
  README.md >"$work/worker.c"
lines=$(wc -l <"$work/worker.c")
[ "$lines" -gt 0 ] || fail "README.md has no C block after <!-- worker.c -->"
[ "$lines" -le 30 ] || fail "README.md promises a worker in 30 lines; it has $lines"

setting() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
sanitize=$(setting ESPALIER_SANITIZE)
"$(setting CMAKE_C_COMPILER)" -std=c11 -Wall -Wextra -Werror ${sanitize:+"-fsanitize=$sanitize"} \
  -Ibase/include -Iclient/include "$work/worker.c" -L"$build/client" -Wl,-rpath,"$build/client" -lespalier \
  -o "$work/worker"

mkfifo "$work/ready"
"$build/server/espalierd" --listen 127.0.0.1:0 --group 'default=sgd(lr=0.5)' >"$work/ready" &
server=$!
exec 3<"$work/ready"
read -r -t 60 ready <&3 || fail "the server did not start"
said=$(ESPALIER_SERVER=${ready##* ready on } "$work/worker")
echo "$said"
[ "$said" = "y = 2.00 x -1.00" ] || fail "the worker is to print: y = 2.00 x -1.00"

kill -TERM "$server"
wait "$server" || fail "the server did not end with exit code 0"
server=
