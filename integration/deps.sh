#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Install the Debian packages that are missing, and nothing else.
set -euo pipefail

# What for: QEMU runs the lab; the compilers and libraries build the guest's
# kernel; python3 is for Xen's build, besides some of those; libxen-dev has the
# headers that the toolstack's numbers are checked against; mke2fs makes disks;
# busybox is the unit tests' root file system.
packages=(
	qemu-system-x86
	gcc make patch flex bison bc python3 libelf-dev libssl-dev kmod cpio xz-utils rsync
	libc6-dev libxen-dev
	e2fsprogs util-linux dpkg ca-certificates
	busybox-static
)

missing=()
for p in "${packages[@]}"; do
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
	printf '=== install %s\n' "${missing[*]}"
	sudo=()
	if [ "$(id -u)" != 0 ]; then
		sudo=(sudo)
		command -v sudo >/dev/null || { echo "not root and no sudo; as root: apt-get install --no-install-recommends ${missing[*]}" >&2; exit 1; }
	fi
	"${sudo[@]}" apt-get update -q
	"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
command -v go >/dev/null || { echo 'no Go: install Go 1.26.8 or newer, see https://go.dev/doc/install' >&2; exit 1; }
