#!/bin/bash
# Clones this checkout's HEAD into a container of debian:bookworm-slim that has only git and apt, and runs the README's
# two commands there, taken from README.md itself. What is not committed is not tested.
#
#   tests/fresh.sh [--smoke]     --smoke: the first command only
#
# The container gets from this machine, at run time, what it needs to reach the same package archives: apt's sources
# and proxy settings, local CA certificates, pip's settings. It is removed at the end, also after an interrupt.
set -euo pipefail
cd "$(dirname "$0")/.."

count=2
case ${1:-} in
'') ;;
--smoke) count=1 ;;
*)
  echo "usage: tests/fresh.sh [--smoke]" >&2
  exit 2
  ;;
esac

# The commands: the lines of README.md's code blocks that begin with one of the two scripts.
mapfile -t commands < <(git show HEAD:README.md |
  awk '/^```/ { code = !code; next } code && /^(deploy\/quickstart|tests\/run)\.sh( |$)/ && !seen[$1]++')
if [ "${#commands[@]}" -ne 2 ] || [[ ${commands[0]} != deploy/quickstart.sh* ]]; then
  echo "fresh.sh: README.md is to name deploy/quickstart.sh, then tests/run.sh, in its code; found: ${commands[*]:-none}" >&2
  exit 1
fi

command -v docker >/dev/null || deploy/deps.sh docker
deploy/base-image.sh

name=espalier-fresh-$$
work=$(mktemp -d)
cleanup() {
  docker rm -f "$name" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# In the background and waited for, so that a signal is acted on at once.
inside() {
  docker exec -i "${pass[@]}" "$name" bash -c "$1" <"${2:-/dev/null}" &
  wait $!
}
pass=()
for variable in $(compgen -e); do
  case $variable in
  PIP_* | http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY) pass+=(-e "$variable") ;;
  esac
done

# Unconfined, because the thread sanitizer may have to turn off address randomisation (tests/run.sh).
docker run -d --init --name "$name" --security-opt seccomp=unconfined debian:bookworm-slim sleep infinity >/dev/null

deploy/base-image.sh --settings "$work"
if [ -f /etc/pip.conf ]; then
  install -D -m 644 /etc/pip.conf "$work/etc/pip.conf"
fi
git clone -q --bare --no-local --depth 1 . "$work/espalier.git"
# A source that the image brings would be asked beside the machine's own.
inside 'rm -f /etc/apt/sources.list.d/*'
inside 'tar -C / --no-overwrite-dir -x' <(tar -C "$work" --owner=0 --group=0 -c .)
inside 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends git' \
  >"$work/log" 2>&1 || {
  tail -n 20 "$work/log" >&2
  exit 1
}
inside 'git clone -q /espalier.git /espalier'

for ((i = 0; i < count; i++)); do
  echo "fresh.sh: ${commands[i]}"
  inside "cd /espalier && ${commands[i]}"
done
echo "fresh.sh: passed"
