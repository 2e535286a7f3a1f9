# shellcheck shell=sh
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# fleetvpn.routing.vpn_openconnect: vpnc-script goes on when the routing is right.
#
# It is sourced, not run: nothing here may end the shell or set a variable. What a VPN server chose is handed to a child in an
# environment of its own, where it is logged and decides nothing.
/usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    reason="${reason-}" \
    TUNDEV="${TUNDEV-}" \
    INTERNAL_IP4_ADDRESS="${INTERNAL_IP4_ADDRESS-}" \
    INTERNAL_IP6_ADDRESS="${INTERNAL_IP6_ADDRESS-}" \
    INTERNAL_IP6_NETMASK="${INTERNAL_IP6_NETMASK-}" \
    /usr/bin/timeout --kill-after=5 20 /usr/local/sbin/fleetvpn-endpoint hook openconnect </dev/null >/dev/null 2>&1 || :
