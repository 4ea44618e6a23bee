#!/bin/bash
# Installs a build to a temporary prefix, and builds and runs a program against that: shared and static, through
# pkg-config and through CMake, with the installed server.
#
#   tests/install/install_test.sh BUILD_DIR
set -euo pipefail
build=$(realpath "$1")
cd "$(dirname "$0")"

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
  echo "install_test.sh: $*" >&2
  exit 1
}

prefix=$work/prefix
cmake --install "$build" --prefix "$prefix" >/dev/null
version=$("$prefix/bin/espalierd" --version | cut -d ' ' -f 2)
[ "$("$prefix/bin/espctl" --version)" = "espctl $version" ] || fail "espctl is of another version than espalierd"
library=$(find "$prefix" -name libespalier.so)
readelf -d "$library" | grep -q 'SONAME.*\[libespalier\.so\.[0-9]' || fail "libespalier.so has no SONAME"
lib=$(dirname "$library")
# What is exported is what the installed headers declare.
nm -D --defined-only "$library" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | sort >"$work/exported"
sed 's:/\*.*\*/::' "$prefix"/include/espalier/*.h | grep -oE '^[a-z].*\besp_[a-z_]+\(' |
  grep -oE 'esp_[a-z_]+\($' | tr -d '(' | sort -u >"$work/declared"
diff "$work/declared" "$work/exported" || fail "the headers declare (<) and the library exports (>) different functions"

# Each can be included alone, from C and from C++.
for header in espalier admin status; do
  for language in c=c11 c++=c++11; do
    echo "#include <espalier/$header.h>" |
      cc -x "${language%=*}" -std="${language##*=}" -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$prefix/include" - ||
      fail "$header.h alone is no ${language##*=}"
  done
done

mkfifo "$work/ready"
"$prefix/bin/espalierd" --listen "unix:$work/socket" >"$work/ready" &
server=$!
exec 3<"$work/ready"
read -r -t 60 ready <&3 || fail "the server did not start"
export ESPALIER_SERVER=${ready##* ready on }

# run PROGRAM shared|static
run() {
  local needs=static said
  said=$(LD_LIBRARY_PATH=$lib "$1") || fail "$1 failed"
  [ "$said" = "$version" ] || fail "$1 is to print $version, not: $said"
  ! readelf -d "$1" | grep -q 'NEEDED.*libespalier' || needs=shared
  [ "$needs" = "$2" ] || fail "$1 is linked $needs"
}
compile() { cc -std=c11 -Wall -Wextra -Werror program.c "$@"; }

export PKG_CONFIG_PATH=$lib/pkgconfig
[ "$(pkg-config --modversion espalier)" = "$version" ] || fail "espalier.pc has another version"
# shellcheck disable=SC2046 # words are what pkg-config prints
compile $(pkg-config --cflags --libs espalier) -o "$work/pc-shared"
run "$work/pc-shared" shared

mkdir "$work/project"
cp program.c "$work/project"
cp project.cmake "$work/project/CMakeLists.txt"
cmake -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
cmake --build "$work/project/build" >/dev/null
run "$work/project/build/shared" shared
run "$work/project/build/static" static

# Where both are there the linker takes the shared one.
mkdir "$work/shared-away"
mv "$lib"/libespalier.so* "$work/shared-away"
# shellcheck disable=SC2046
compile $(pkg-config --static --cflags --libs espalier) -o "$work/pc-static"
run "$work/pc-static" static

kill -TERM "$server"
wait "$server" || fail "the server did not end with exit code 0"
server=
