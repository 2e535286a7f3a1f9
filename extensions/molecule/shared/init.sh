#!/bin/sh
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What a container begins with: systemd. From version 258 on it needs cgroup v2, which a machine may have beside its v1:
# then it gets that instead, from where podman has put the container, so that it sees and leaves nothing of others.
set -eu

init=/lib/systemd/systemd
cgroups=/sys/fs/cgroup
version=$("$init" --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')

if [ "${1:-}" = own ]; then
    umount -R "$cgroups"
    mount -t cgroup2 cgroup2 "$cgroups"
elif [ "$version" -ge 258 ] && [ ! -e "$cgroups/cgroup.controllers" ]; then
    case $(sed -n 's/^0:://p' /proc/self/cgroup) in
        "" | /) echo "systemd $version needs cgroup v2 and a cgroup of its own there" >&2; exit 1 ;;
    esac
    exec unshare --cgroup "$0" own
fi
exec "$init"
