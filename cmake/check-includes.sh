#!/bin/sh
# Fails when a folder includes what it may not (docs/architecture.md): the arrows between folders point one way, other
# folders of the server are seen through their one header, and gRPC and the generated code stay in quarantine.
#
#   cmake/check-includes.sh [ROOT]
set -eu
cd "${1:-$(dirname "$0")/..}"

find base wire formats server client -name '*.[ch]' -exec grep -HnE '^[[:space:]]*#[[:space:]]*include' {} + | awk '
BEGIN {
  # What the files whose path begins with the key may include beside their own folder; the longest key counts.
  allowed["base/"] = ""
  allowed["wire/"] = "base"
  allowed["formats/"] = "base jansson.h"
  allowed["server/tree/"] = "base"
  allowed["server/optim/"] = "base"
  allowed["server/store/"] = "base formats tree optim xxhash.h"
  allowed["server/engine/"] = "base formats tree optim store xxhash.h"
  allowed["server/rpc/"] = "base wire tree optim engine grpc pb-c"
  allowed["server/ops/"] = "base engine rpc uv.h"
  allowed["server/options/"] = "base optim engine cyaml"
  allowed["server/plan/"] = "base formats engine"
  allowed["server/"] = "base optim engine rpc ops options plan"
  allowed["client/include/"] = "base api"
  allowed["client/src/"] = "base wire api"
  allowed["client/src/transport"] = "base wire api grpc"
  allowed["client/src/codec"] = "base wire api pb-c"
  allowed["client/cli/"] = "base formats api jansson.h"
  allowed["client/examples/"] = "api"
}

# The folder, or the library that not everybody may use, that an include names; "" for all that is free.
function target_of(name, quoted,    first) {
  first = name
  sub(/\/.*/, "", first)
  if (name ~ /\.pb-c\.h$/ || first == "protobuf-c") return "pb-c"
  if (name == "espalier/status.h") return quoted ? "base" : "free"
  if (name ~ /^espalier\/(espalier|admin)\.h$/) return "api"
  if (first ~ /^(grpc|cyaml)$/ || name ~ /^(uv|jansson|xxhash)\.h$/) return first
  if (!quoted) return "free"
  if (first == "client") return substr(name, 1, match(name, /\/[^\/]*$/) - 1)
  return first
}

{
  split($0, part, ":")
  file = part[1]
  name = $0
  quoted = name ~ /include[[:space:]]*"/
  sub(/^[^"<]*["<]/, "", name)
  sub(/[">].*/, "", name)

  key = ""
  for (k in allowed) if (index(file, k) == 1 && length(k) > length(key)) key = k
  own = file
  sub(/\/[^\/]*$/, "", own)
  if (own !~ /^client\//) sub(/^server\//, "", own)
  sub(/^base\/.*/, "base", own)

  target = target_of(name, quoted)
  if (target == "free" || target == own) next
  why = ""
  if (quoted && name !~ /\//) why = "is to be written from the root or from server/"
  else if (!index(" " allowed[key] " ", " " target " ")) why = "is not for " key
  else if (target ~ /^(tree|optim|store|engine|rpc|ops|options|plan)$/ && name != target "/" target ".h")
    why = "is inside " target "; others see " target "/" target ".h"
  if (why) {
    print file ":" part[2] ": " name " " why
    bad = 1
  }
}
END { exit bad }' >&2
