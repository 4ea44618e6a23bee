#!/bin/sh
# Makes the Docker image debian:bookworm-slim: nothing where it is there, else by a pull, else from Debian's archive
# with debootstrap. The archive is whatever this machine's apt uses, read when this runs.
#
#   deploy/base-image.sh                 makes the image
#   deploy/base-image.sh --settings DIR  writes the files below etc/ that a container of it needs on this machine to reach
#                                        the archive: apt's sources and proxy settings, CA certificates
set -eu

image=debian:bookworm-slim
here=$(dirname "$0")

# This machine's sources of Debian 12 itself, as lines of a sources.list. Others' repositories are left out.
sources() {
  # shellcheck disable=SC2016 # the $() are apt's
  apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 ~ /^bookworm(-updates|-security)?$/ && $3 == "main" { print "deb", $1, $2, $3 }' | sort -u
}

settings() {
  mkdir -p "$1/etc/apt/apt.conf.d"
  sources >"$1/etc/apt/sources.list"
  apt-config dump | grep -E '^Acquire::(http|https|Retries|Check-Date|Check-Valid-Until)\b' \
    >"$1/etc/apt/apt.conf.d/90host" || true
  if grep -q https: "$1/etc/apt/sources.list"; then
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"
  fi
  for file in /usr/local/share/ca-certificates/*.crt; do
    [ ! -f "$file" ] || install -D -m 644 "$file" "$1$file"
  done
}

# What sets the real image apart from a new Debian: no documentation, no caches of apt, no fsync for each file.
slim() {
  for part in doc man info locale; do
    find "$1/usr/share/$part" ! -type d ! -name copyright -delete 2>/dev/null || true
    printf 'path-exclude /usr/share/%s/*\n' "$part"
  done >"$1/etc/dpkg/dpkg.cfg.d/docker"
  printf 'path-include /usr/share/doc/*/copyright\nforce-unsafe-io\n' >>"$1/etc/dpkg/dpkg.cfg.d/docker"
  cat >"$1/etc/apt/apt.conf.d/docker-clean" <<'END'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
END
  rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*
}

if [ "${1:-}" = --settings ]; then
  settings "$2"
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
settings "$tree/image"
slim "$tree/image"
tar -C "$tree/image" --numeric-owner -cf "$tree/image.tar" .
docker import --change 'CMD ["bash"]' "$tree/image.tar" "$image" >/dev/null
