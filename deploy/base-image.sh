#!/bin/sh
# Makes the Docker image debian:bookworm-slim: nothing where it is there, else by a pull, else from Debian's archive
# with debootstrap. The archive is whatever this machine's apt uses, read when this runs.
#
#   deploy/base-image.sh            makes the image
#   deploy/base-image.sh --sources  prints the apt sources that a container of it needs on this machine
set -eu

image=debian:bookworm-slim
here=$(dirname "$0")

# This machine's sources of Debian 12 itself, as lines of a sources.list. Others' repositories are left out.
sources() {
  # shellcheck disable=SC2016 # the $() are apt's
  apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 ~ /^bookworm(-updates|-security)?$/ && $3 == "main" { print "deb", $1, $2, $3 }' | sort -u
}

if [ "${1:-}" = --sources ]; then
  sources
  exit 0
fi
if docker image inspect "$image" >/dev/null 2>&1; then
  exit 0
fi
echo "base-image.sh: pulling $image"
if timeout 120 docker pull -q "$image"; then
  exit 0
fi

mirror=$(sources | awk '$3 == "bookworm" { print $2; exit }')
if [ -z "$mirror" ]; then
  echo "base-image.sh: $image can't be pulled, and this machine's apt has no source of Debian bookworm" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "base-image.sh: $image can't be pulled, and only root can build it with debootstrap" >&2
  exit 1
fi
command -v debootstrap >/dev/null || "$here/deps.sh" docker

echo "base-image.sh: building $image from $mirror"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
trap 'exit 1' INT TERM HUP
debootstrap --variant=minbase bookworm "$tree/image" "$mirror" >"$tree/log" 2>&1 || {
  tail -n 20 "$tree/log" >&2
  exit 1
}
sources >"$tree/image/etc/apt/sources.list"
rm -rf "$tree"/image/var/cache/apt/archives/*.deb "$tree"/image/var/lib/apt/lists/*
tar -C "$tree/image" --numeric-owner -c . | docker import --change 'CMD ["bash"]' - "$image" >/dev/null
