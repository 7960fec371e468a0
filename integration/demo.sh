#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Run a container as an X-Container in the lab, and show that it is one.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=bin/lab
export XCONTAINER_LAB=demo
image=docker.io/library/busybox:lab
show() { printf '\ndom0# %s\n' "$*"; $lab exec -- "$@"; }

$lab down >/dev/null 2>&1 || true
trap '$lab down >/dev/null 2>&1 || true' EXIT
$lab up

show uname -a
show ctr run --rm --runtime io.containerd.xcontainer.v2 "$image" hello uname -a
show ctr run -d --runtime io.containerd.xcontainer.v2 "$image" demo sleep 600
show xcontainerctl ps
show ctr task exec --exec-id shell demo sh -c 'echo "pid 1 here: $(cat /proc/1/cmdline | tr "\0" " ")"; free -m'
show ctr task kill -s KILL demo
# The task is gone from containerd a moment after its process.
$lab exec -- sh -c 'until ctr task delete demo 2>/dev/null; do sleep 0.2; done 2>/dev/null; ctr container delete demo' || true
show xcontainerctl ps
printf '\nAn unmodified image ran on its own Linux kernel, in its own Xen domain.\n'
