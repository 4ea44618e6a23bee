#!/bin/bash
# Espalier in one command: installs what is missing, builds, and trains a network on handwritten digits: one server, two
# workers, and an operator who freezes the first layer in the middle of it. Prints `accuracy 0.xxx` on rows that no
# worker trained on.
#
#   deploy/quickstart.sh [--build-dir DIR]     --build-dir: take the programs built in DIR, install and build nothing
#
# QUICKSTART_STEPS sets how many steps the workers take together at least. Exit code 0: everything below was checked and
# held, and no process is left. Otherwise a line on stderr says what did not.
set -euo pipefail

# Whatever happens, nothing is left. So the work is done by a second shell, in a process group with all that it starts,
# and this one only waits for it: in `wait` a signal is acted on at once and never lost, which bash does not promise while
# it waits for a command.
if [ -z "${QUICKSTART_WORK:-}" ]; then
  cleanup() {
    trap '' INT TERM HUP
    local group
    group=$(jobs -p)
    if [ -n "$group" ] && kill -TERM -- "-$group" 2>/dev/null; then
      for _ in {1..100}; do
        kill -0 -- "-$group" 2>/dev/null || break
        sleep 0.1
      done
      for _ in {1..50}; do # one that is killed is still there for a moment
        kill -KILL -- "-$group" 2>/dev/null || break
        sleep 0.1
      done
    fi
    rm -rf "$QUICKSTART_WORK"
  }
  QUICKSTART_WORK=$(mktemp -d)
  export QUICKSTART_WORK
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  set -m
  "$0" "$@" &
  set +m
  wait "$!"
  exit
fi
work=$QUICKSTART_WORK

build=
steps=${QUICKSTART_STEPS:-12000}
case $#:${1:-} in
0:) ;;
2:--build-dir) build=$(realpath -- "$2") ;;
*)
  echo "usage: deploy/quickstart.sh [--build-dir DIR]" >&2
  exit 2
  ;;
esac
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
fail() {
  echo "quickstart.sh: $*" >&2
  exit 1
}

compile() {
  cmake --preset release -B "$build" -DESPALIER_TESTS=OFF && cmake --build "$build"
}

if [ -z "$build" ]; then
  build=build/quickstart
  say "installing what is missing"
  deploy/deps.sh build
  say "building in $build"
  compile >"$work/build.log" 2>&1 || {
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
# As "DIGEST at commit NUMBER".
digest() {
  local json
  json=$(espctl digest "$1" --json) || return
  echo "$(value digest <<<"$json") at commit $(value commit <<<"$json")"
}

# Asks until a state is reached, for five minutes at most, while the server and the workers run.
server=
workers=()
wait_for() {
  local deadline=$((SECONDS + 300)) pid
  until "${@:2}"; do
    for pid in "$server" "${workers[@]}"; do
      kill -0 "$pid" 2>/dev/null || fail "a program ended before this was seen: $1"
    done
    [ "$SECONDS" -lt "$deadline" ] || fail "this was not seen within five minutes: $1"
    sleep 0.05
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
  [ "${now%% *}" != "${2%% *}" ]
}

default_rule='adamw(lr=0.0005, weight_decay=0.02)'
head_rule='sgd(lr=0.005, momentum=0.9)'

say "a server on a free port: adamw for all but the head, which has sgd with momentum"
"$espalierd" --listen 127.0.0.1:0 --group "default=$default_rule" --group "output=$head_rule" --assign head=output \
  >"$work/ready" &
server=$!
wait_for "the server's ready line" grep ' ready on ' "$work/ready"
ESPALIER_SERVER=$(sed 's/.* ready on //' "$work/ready")
export ESPALIER_SERVER

say "two workers"
start=$(date +%s%N)
for n in 1 2; do
  "$digits" --role train --worker "worker-$n" --seed "$n" --steps 0 --report 500 --data "$table" &
  workers+=($!)
done
wait_for "an eighth of the steps" commits_reach $((steps / 8))
espctl tree

say "espctl freeze encoder: the first layer stands still, the rest learns"
espctl freeze encoder
encoder=$(digest encoder)
head=$(digest head)
wait_for "1000 commits more" commits_reach $((${head##* } + 1000))
encoder_later=$(digest encoder)
head_later=$(digest head)
printf 'espctl digest encoder  %s\n' "$encoder" "$encoder_later"
printf 'espctl digest head     %s\n' "$head" "$head_later"
[ "${encoder%% *}" = "${encoder_later%% *}" ] || fail "the frozen layer changed"
[ "${head%% *}" != "${head_later%% *}" ] || fail "the head, which is not frozen, did not change"

say "espctl thaw encoder: it learns again"
espctl thaw encoder
wait_for "a change of the thawed layer" digest_differs encoder "$encoder_later"
wait_for "all $steps steps" commits_reach "$steps"
kill -TERM "${workers[@]}"
for pid in "${workers[@]}"; do
  wait "$pid" || fail "a worker failed"
done
milliseconds=$((($(date +%s%N) - start) / 1000000))
trained=$(espctl status --json | value applied)

say "the result, on the rows that no worker trained on"
"$digits" --role evaluate --data "$table" >"$work/accuracy" || fail "the evaluation failed"
cat "$work/accuracy"
awk '$1 == "accuracy" && $2 >= 0.95 { good = 1 } END { exit !good }' "$work/accuracy" ||
  fail "the accuracy is below 0.95"
echo "$((trained * 1000 / milliseconds)) steps per second, both workers together"
espctl export "$build/digits.safetensors"

kill -TERM "$server"
wait "$server" || fail "the server did not end with exit code 0"

say "to try next"
cat <<EOF
$espalierd --group 'default=$default_rule' --group 'output=$head_rule' --assign head=output &
$digits --role train --steps 0 --data $table &
$build/client/espctl tree
$build/client/espctl freeze 'hidden.*' --dry-run
$build/client/espctl digest
$build/client/espctl help
kill %2 %1
EOF
