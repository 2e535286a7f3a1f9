#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The container images: a Debian with systemd, made by debootstrap, so that no container registry is needed.
#
#   image.sh name    prints the image's name; FLEETVPN_IMAGE, if set, names another image instead
#   image.sh build   makes the image if podman does not have it yet (root; about two minutes)
#
# FLEETVPN_SUITE says which Debian. bookworm, if it is not set, has what all Molecule scenarios need; the others have what
# one of them needs, wireguard or, since bullseye has no WireGuard in user space, openvpn; trixie also has what the tests with
# marker `controller` need.
#
# With FLEETVPN_FRESH=yes it is a host as a newcomer has it: SSH and VPNs, but nothing that the collection needs. What it may
# install lies in /srv/debian, an archive like Debian's, since containers have no network.
#
# The tag is a digest of this file: a changed package list is a new image, an unchanged one is never built twice.
set -euo pipefail

readonly suite=${FLEETVPN_SUITE:-bookworm}
readonly fresh=${FLEETVPN_FRESH:-}
readonly repository=localhost/fleetvpn-${fresh:+fresh-}$suite
readonly archive=srv/debian

# libpam-systemd must be named: debootstrap does not resolve polkitd's "default-logind | logind" and would leave
# polkitd and network-manager unconfigured, with warnings only.
packages=(
    systemd systemd-sysv libpam-systemd dbus udev kmod procps ca-certificates
    python3 python3-apt python3-pyroute2 python3-venv sudo
    iproute2 nftables conntrack iputils-ping tcpdump
)
disabled=()
archived=()
case ${fresh:+fresh-}$suite in
    fresh-*)
        packages=(
            systemd systemd-sysv libpam-systemd dbus procps iproute2 iputils-ping ca-certificates
            openssh-server sudo python3 wireguard-tools wireguard-go openvpn openssl
        )
        archived=(nftables python3-apt python3-pyroute2 python3-venv)
        ;;
    bookworm)
        packages+=(
            wireguard-tools wireguard-go openvpn openssl ocserv openconnect vpnc-scripts ppp tinc nebula
            network-manager network-manager-openconnect network-manager-openvpn ifupdown netplan.io firewalld
            charon-systemd strongswan-swanctl
            libcharon-extra-plugins libstrongswan-standard-plugins libcharon-extauth-plugins
        )
        disabled=(NetworkManager NetworkManager-wait-online networking firewalld ocserv strongswan tinc)
        ;;
    bullseye)
        packages+=(openvpn openssl)
        ;;
    trixie)
        packages+=(
            wireguard-tools wireguard-go openvpn openssl ocserv openconnect vpnc-scripts ppp
            dnsmasq-base git openssh-client
        )
        disabled=(ocserv)
        ;;
    *)
        packages+=(wireguard-tools wireguard-go)
        ;;
esac

image_name() {
    local digest
    digest=$(sha256sum "${BASH_SOURCE[0]}")
    echo "${FLEETVPN_IMAGE:-$repository:${digest:0:12}}"
}

# The mirror that this machine's own apt uses, whatever its suite; nothing on a machine that is not Debian, where
# debootstrap knows one.
mirror() {
    # shellcheck disable=SC2016 # apt's own placeholders, not the shell's
    apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $(own_suite)" "Component: main" \
        "Origin: Debian" | sed -n 1p
}

own_suite() {
    # shellcheck disable=SC1091 # every machine has its own
    (. /etc/os-release && echo "${VERSION_CODENAME:-none}")
}

make_rootfs() {
    local rootfs=$1
    # shellcheck disable=SC2046 # no mirror must be no argument
    if ! debootstrap --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" "$suite" "$rootfs" $(mirror) \
        > "$rootfs.log" 2>&1; then
        cat "$rootfs.log" >&2
        return 1
    fi
    # debootstrap is content with packages that it could not configure; dpkg is not.
    test -z "$(chroot "$rootfs" dpkg --audit | tee /dev/stderr)"
    # A scenario that wants one of them enables it; by default nothing configures a device, or listens, unasked.
    [ ${#disabled[@]} -eq 0 ] || chroot "$rootfs" systemctl disable "${disabled[@]}"
    rm -rf "$rootfs"/var/cache/apt/archives/*.deb
    [ ${#archived[@]} -eq 0 ] || make_archive "$rootfs"
    rm -rf "$rootfs"/var/lib/apt/lists/*
}

# Has the packages and what they depend on, and is the only one that apt knows from then on.
make_archive() {
    local rootfs=$1 package
    chroot "$rootfs" apt-get update --quiet=2
    chroot "$rootfs" apt-get install --quiet=2 --yes --download-only "${archived[@]}"
    mkdir -p "$rootfs/$archive"
    mv "$rootfs"/var/cache/apt/archives/*.deb "$rootfs/$archive"
    for package in "$rootfs/$archive"/*.deb; do
        dpkg-deb --field "$package"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${package##*/}" "$(stat --format %s "$package")" \
            "$(sha256sum < "$package" | cut -d " " -f 1)"
    done > "$rootfs/$archive/Packages"
    echo "deb [trusted=yes] file:/$archive ./" > "$rootfs/etc/apt/sources.list"
}

build() {
    local name work
    name=$(image_name)
    if podman image exists "$name"; then
        echo "image $name is there"
        return
    fi
    if [ -n "${FLEETVPN_IMAGE:-}" ]; then
        podman pull "$name"
        return
    fi
    work=$(mktemp -d --tmpdir fvt-image.XXXXXX)
    # shellcheck disable=SC2064 # the directory's name now, not at exit
    trap "rm -rf --one-file-system '$work'" EXIT
    make_rootfs "$work/rootfs"
    tar -C "$work/rootfs" --one-file-system -c . | podman import --change 'CMD=["/lib/systemd/systemd"]' - "$name"
    echo "image $name is built"
}

case ${1:-} in
    name) image_name ;;
    build) build ;;
    *) echo "usage: ${0##*/} name|build" >&2; exit 2 ;;
esac
