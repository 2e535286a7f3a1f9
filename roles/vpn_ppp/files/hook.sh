#!/bin/sh
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# fleetvpn.routing.vpn_ppp: pppd waits for this as ip-pre-up, before the link carries anything, and runs it as ip-up.
#
# What a VPN server chose is handed on in an environment of its own, where it is logged and decides nothing.
case $0 in
    */ip-pre-up*) event=ip-pre-up ;;
    *) event=ip-up ;;
esac
/usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    PPP_EVENT="$event" \
    PPP_IFACE="${1-}" \
    PPP_LOCAL="${4-}" \
    PPP_REMOTE="${5-}" \
    /usr/bin/timeout --kill-after=5 20 /usr/local/sbin/fleetvpn-endpoint hook ppp </dev/null >/dev/null 2>&1 || :
