#!/bin/sh
# Installs the Debian packages that are missing, and nothing when all are there. As root, or through sudo.
#
#   deploy/deps.sh [GROUP...]     build   to build the server, the library and espctl
#                                 tests   to run tests/run.sh
#                                 fuzz    for tests/fuzz/run, beside tests
#                                 docker  for tests/fresh.sh, tests/compose and deploy/base-image.sh
# Without a group: build and tests.
set -eu

build="build-essential ca-certificates cmake git libabsl-dev libcyaml-dev libgrpc-dev libjansson-dev libprotobuf-c-dev
  libuv1-dev libxxhash-dev libyaml-dev ninja-build pkg-config protobuf-c-compiler protobuf-compiler zlib1g-dev"
tests="clang clang-format clang-tidy libcmocka-dev protobuf-compiler-grpc python3 python3-grpcio python3-numpy python3-protobuf
  python3-venv"
fuzz="libclang-rt-dev"
docker="debootstrap docker-compose docker.io"

if [ $# -eq 0 ]; then
  set -- build tests
fi
wanted=
for group in "$@"; do
  case $group in
  build) wanted="$wanted $build" ;;
  tests) wanted="$wanted $tests" ;;
  fuzz) wanted="$wanted $fuzz" ;;
  docker) wanted="$wanted $docker" ;;
  *)
    echo "deps.sh: no such group: $group (build, tests, fuzz or docker)" >&2
    exit 2
    ;;
  esac
done

missing=
for package in $wanted; do
  # shellcheck disable=SC2016 # the ${} is dpkg's
  if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
    missing="$missing $package"
  fi
done
if [ -z "$missing" ]; then
  exit 0
fi

sudo=
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "deps.sh: these packages are missing, and there is neither root nor sudo to install them:$missing" >&2
    exit 1
  fi
  sudo=sudo
fi
echo "deps.sh: installing:$missing"
$sudo apt-get update -q
# shellcheck disable=SC2086 # a list of words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
