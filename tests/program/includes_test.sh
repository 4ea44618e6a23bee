#!/bin/sh
# cmake/check-includes.sh passes here, and catches every arrow that is planted.
#
#   tests/program/includes_test.sh
set -eu
cd "$(dirname "$0")/../.."
check=$PWD/cmake/check-includes.sh
"$check"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# plant FILE INCLUDE WHAT-THE-MESSAGE-SAYS, or allow FILE INCLUDE
tree() {
  rm -rf "$work/tree"
  for folder in base wire formats server client; do mkdir -p "$work/tree/$folder"; done
  mkdir -p "$work/tree/$(dirname "$1")"
  printf '#include <stdio.h>\n#include %s\n' "$2" >"$work/tree/$1"
}
plant() {
  tree "$1" "$2"
  if "$check" "$work/tree" 2>"$work/said"; then
    echo "not caught: $1 includes $2" >&2
    exit 1
  fi
  grep -q "^$1:2: .*$3" "$work/said" || {
    echo "wrong message:" >&2
    cat "$work/said" >&2
    exit 1
  }
}
allow() {
  tree "$1" "$2"
  "$check" "$work/tree"
}

plant base/x.c '"wire/wire.h"' 'not for base'
plant wire/x.h '"formats/npy.h"' 'not for wire'
plant formats/x.c '"tree/tree.h"' 'not for formats'
plant server/tree/x.c '"optim/optim.h"' 'not for server/tree'
plant server/tree/x.c '"engine/engine.h"' 'not for server/tree'
plant server/optim/x.c '"tree/tree.h"' 'not for server/optim'
plant server/engine/x.c '"rpc/rpc.h"' 'not for server/engine'
plant server/engine/x.c '<grpc/grpc.h>' 'not for server/engine'
plant server/engine/x.c '"espalier/v1/admin.pb-c.h"' 'not for server/engine'
plant server/engine/x.c '<uv.h>' 'not for server/engine'
plant server/engine/x.c '"tree/tree_internal.h"' 'inside tree'
plant server/ops/x.c '<grpc/grpc.h>' 'not for server/ops'
plant server/main.c '"engine/internal.h"' 'inside engine'
plant server/main.c '"espalier/v1/types.pb-c.h"' 'not for server'
plant client/src/x.c '"engine/engine.h"' 'not for client/src'
plant client/src/x.c '"server/engine/engine.h"' 'not for client/src'
plant client/src/x.c '<grpc/grpc.h>' 'not for client/src'
plant client/cli/x.c '"client/src/transport.h"' 'not for client/cli'
plant client/examples/x.c '"base/alloc.h"' 'not for client/examples'
plant server/tree/x.c '"../engine/engine.h"' 'not for server/tree'
plant server/tree/x.c '"engine.h"' 'written from the root'
allow server/engine/x.c '"tree/tree.h"'
allow server/engine/x.c '"engine/internal.h"'
allow server/rpc/x.c '<grpc/grpc.h>'
allow client/src/transport.c '<grpc/grpc.h>'
allow client/examples/x.c '<espalier/espalier.h>'
allow client/examples/x.c '<espalier/admin.h>'
echo "every planted arrow was caught"
