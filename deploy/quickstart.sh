#!/bin/bash
# Espalier in one command: installs what is missing, builds, and trains a network on handwritten digits: one server, two
# workers, and an operator who freezes the first layer in the middle of it. Prints `accuracy 0.xxx` on rows that no worker trained on.
#
#   deploy/quickstart.sh [--build-dir DIR]     --build-dir: take the programs built in DIR, install and build nothing
#
# QUICKSTART_STEPS sets how many steps each worker takes. Exit code 0: everything below was checked and held, and no
# process is left. Otherwise a line on stderr says what did not.
set -euo pipefail
cd "$(dirname "$0")/.."

build=
steps=${QUICKSTART_STEPS:-3000}
case $#:${1:-} in
0:) ;;
2:--build-dir) build=$2 ;;
*)
  echo "usage: deploy/quickstart.sh [--build-dir DIR]" >&2
  exit 2
  ;;
esac

say() { printf '\n== %s\n' "$*"; }
fail() {
  echo "quickstart.sh: $*" >&2
  exit 1
}

# Whatever happens, nothing is left: every child is asked to end, and killed where it does not within five seconds.
work=$(mktemp -d)
cleanup() {
  trap '' INT TERM HUP
  local pid
  for pid in $(jobs -pr); do
    kill -TERM "$pid" 2>/dev/null || true
  done
  for pid in $(jobs -pr); do
    timeout 5 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
  done
  wait
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# In the background and waited for, so that a signal is acted on at once.
run() {
  "$@" &
  wait $!
}

compile() {
  cmake --preset release -B "$build" -DESPALIER_TESTS=OFF && exec cmake --build "$build"
}

if [ -z "$build" ]; then
  build=build/quickstart
  say "installing what is missing"
  deploy/deps.sh build
  say "building in $build"
  run compile >"$work/build.log" 2>&1 || {
    tail -n 40 "$work/build.log" >&2
    fail "the build failed"
  }
fi

espalierd=$build/server/espalierd
digits=$build/client/examples/espalier-digits
table=client/examples/data/digits.csv.gz
espctl() { "$build/client/espctl" "$@"; }

# The first value of a key in espctl's --json, a number or hexadecimal digits.
value() { sed -nE "/\"$1\":/{s/.*\"$1\": *\"?([0-9a-f]+).*/\1/p;:rest;n;brest}"; }
commits() { espctl status --json | value commit; }
digest() { espctl digest "$1" --json | value digest; }

# Waits, half a minute at most, until a command succeeds, while the server and both workers run.
until_true() {
  local deadline=$((SECONDS + 30)) pid
  until "${@:2}"; do
    for pid in "$server" "${workers[@]}"; do
      kill -0 "$pid" 2>/dev/null || fail "a program ended while waiting for $1"
    done
    [ "$SECONDS" -lt "$deadline" ] || fail "no $1 within 30 seconds"
  done
}
commits_reach() {
  local now
  now=$(commits) || fail "espctl status failed"
  [ "$now" -ge "$1" ]
}
digest_differs() {
  local now
  now=$(digest "$1") || fail "espctl digest failed"
  [ "$now" != "$2" ]
}

say "a server on a free port: adamw for all, sgd with momentum for the head"
groups=(--group 'default=adamw(lr=0.001, weight_decay=0.01)' --group 'output=sgd(lr=0.02, momentum=0.9)'
  --assign head=output)
mkfifo "$work/ready"
"$espalierd" --listen 127.0.0.1:0 "${groups[@]}" >"$work/ready" &
server=$!
exec 3<"$work/ready"
read -r -t 30 ready <&3 || fail "the server did not start"
echo "$ready"
ESPALIER_SERVER=${ready##* ready on }
export ESPALIER_SERVER

say "two workers, $steps steps each"
workers=()
start=$(date +%s%N)
for n in 1 2; do
  "$digits" --role train --worker "worker-$n" --seed "$n" --steps "$steps" --data "$table" &
  workers+=($!)
done
until_true "quarter of the steps" commits_reach $((steps / 2))
espctl tree

say "espctl freeze encoder: the first layer stands still, the rest learns"
espctl freeze encoder
encoder=$(digest encoder)
head=$(digest head)
frozen_at=$(commits)
until_true "200 commits more" commits_reach $((frozen_at + 200))
encoder_later=$(digest encoder)
head_later=$(digest head)
printf 'digest of     at commit %-5s                    200 commits later\n' "$frozen_at"
printf 'encoder       %s  %s\n' "$encoder" "$encoder_later"
printf 'head          %s  %s\n' "$head" "$head_later"
[ "$encoder" = "$encoder_later" ] || fail "the frozen layer changed"
[ "$head" != "$head_later" ] || fail "the head, which is not frozen, did not change"

say "espctl thaw encoder: it learns again"
espctl thaw encoder
until_true "change of the thawed layer" digest_differs encoder "$encoder_later"
for pid in "${workers[@]}"; do
  wait "$pid" || fail "a worker failed"
done
milliseconds=$((($(date +%s%N) - start) / 1000000))

say "the result, on the rows that no worker trained on"
run "$digits" --role evaluate --data "$table" >"$work/accuracy" || fail "the evaluation failed"
cat "$work/accuracy"
awk '$1 == "accuracy" && $2 >= 0.95 { good = 1 } END { exit !good }' "$work/accuracy" ||
  fail "the accuracy is below 0.95"
echo "$((steps * 2 * 1000 / milliseconds)) steps per second, both workers together"
espctl export "$build/digits.safetensors"

kill -TERM "$server"
wait "$server" || fail "the server did not end with exit code 0"

say "to try next"
cat <<EOF
$espalierd ${groups[*]@Q} &
$digits --role train --steps 20000 --data $table &
$build/client/espctl status
$build/client/espctl freeze 'hidden.*' --dry-run
$build/client/espctl help
EOF
