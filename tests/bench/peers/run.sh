#!/bin/sh
# usage: run.sh WORK OUT [options of run.py]
# Prepares WORK for the systems that --systems names (virtual environments, binaries: once; what is there is kept) and
# measures into OUT. Debian 12; apt needs root. Espalier is not built here, and ps-lite's peer is not: see README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" "$2"
work=$(cd "$1" && pwd) out=$(cd "$2" && pwd)
shift 2

systems=all before=
for word in "$@"; do
    case $word in --systems=*) systems=${word#--systems=} ;; esac
    [ "$before" != --systems ] || systems=$word
    before=$word
done
wanted() { # system
    case ",$systems," in *,all,* | *,"$1",*) return 0 ;; esac
    return 1
}

need="python3-venv iperf3 gcc g++"
! wanted torch || need="$need python3-torch"
if ! dpkg -s $need >/dev/null 2>&1; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q $need
fi
venv() { # system, folder, packages
    wanted "$1" || return 0
    dir=$work/$2
    shift 2
    [ ! -e "$dir/.done" ] || return 0
    python3 -m venv "$dir" && "$dir/bin/pip" install -q "$@" && touch "$dir/.done"
}
venv mxnet mx numpy==1.23.5 mxnet==1.9.1
venv tensorflow tf tensorflow-cpu
venv stockgrpc grpc grpcio grpcio-tools numpy

mkdir -p "$work/build"
cd "$work/build"
if wanted stockgrpc; then
    "$work/grpc/bin/python" -m grpc_tools.protoc -I"$here" --python_out=. --grpc_python_out=. "$here/stock.proto"
fi
gcc -O3 -march=native -fno-math-errno "$here/limits.c" -o limits -lm -lpthread
if wanted rawtcp; then
    g++ -std=c++14 -O3 -march=native -fno-math-errno "$here/rawtcp_peer.cc" -o rawtcp_peer -lpthread
fi

exec python3 "$here/run.py" --work "$work" --out "$out" "$@"
