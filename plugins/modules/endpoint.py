#!/usr/bin/python
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a VPN endpoint correct routing for each of its addresses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint
short_description: Give a VPN endpoint correct routing for each of its addresses
version_added: 1.0.0
description:
  - A host that connects in through a VPN has two identities, an inside address and an outside address. This module
    makes packets from each address leave by the egress that belongs to it, for IPv4 and IPv6, by policy routing.
  - It takes the whole declaration of a host in one task and carries it out in one transaction. The order of the changes
    is such that no packet leaves by a wrong device in between, a failure half-way is undone, and the task succeeds only
    if the kernel itself, asked for the path of every address, gives the declared one.
  - Nothing foreign is changed or removed. What the module adds carries a routing protocol number of its own
    (O(numbers.protocol)), and only that is ever removed. The device group of tunnel devices is the one thing that it
    sets on a device unasked; the old value is kept and put back. O(sysctls) allows more.
extends_documentation_fragment:
  - fleetvpn.routing._attributes
  - fleetvpn.routing._attributes.full
  - fleetvpn.routing._requirements.privileged
  - fleetvpn.routing._table.listed
  - fleetvpn.routing._rule.listed
  - fleetvpn.routing._route.listed
  - fleetvpn.routing._paths
  - fleetvpn.routing._paths.kept
  - fleetvpn.routing._netns
options:
  identities:
    description:
      - The identities of the host. Each is a named set of local addresses, or a pool that they come from, with one way
        out.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Its name, a letter followed by up to 31 letters, digits, V(_) or V(-).
          - V(keep), V(auto), V(any), V(none), V(main), V(local) and V(default) are reserved.
        type: str
        required: true
      tunnel:
        description:
          - The VPN client that carries the identity. With it, this is an identity of a tunnel. Without it, it is one of
            an uplink, unless O(identities[].gateway=none).
        type: dict
        suboptions:
          type:
            description: The kind of VPN.
            type: str
            required: true
            choices: [ipsec, openconnect, openvpn, overlay, ppp, wireguard]
          manager:
            description: What starts it, such as V(wg-quick) or V(openvpn). Found on the host unless given.
            type: str
          connection:
            description: The client's name for it, such as V(wg0) for C(/etc/wireguard/wg0.conf).
            type: str
          apply:
            description:
              - When a change to how the client is started takes effect. The module itself never restarts a VPN; role
                P(fleetvpn.routing.endpoint#role) does if told so.
            type: str
            choices: [next_connect, reload, restart]
            default: next_connect
      interface:
        description:
          - The egress, as the name of a device, a pattern such as V(en*), a list of these, or V(auto) for the device of
            the uplink's default route. If an identity of an uplink has several devices, each gets a table of its own.
          - The default is V(auto) for an uplink, and the client's device for a tunnel. It need not exist yet.
          - The client's device is not known for a tunnel of type V(ipsec). It is the one that holds the addresses. If
            they sit on no device of a tunnel but on an uplink or on C(lo), the kernel's IPsec policies encrypt what
            leaves by the uplink, and that is then the egress, as with V(auto).
        type: list
        elements: str
      address_interface:
        description: Where the addresses sit if not on the egress. Names, patterns, or V(any).
        type: list
        elements: str
      addresses:
        description:
          - Its addresses. Found on the device unless given. A length, as C(ip addr) prints it, is dropped.
        type: list
        elements: str
      pools:
        description:
          - Prefixes that its addresses come from. They are guarded before an address is there, so that nothing leaks
            between the assignment of an address and the rule for it. For an identity of a tunnel.
        type: list
        elements: str
      gateway:
        description:
          - The gateway, at most one address for each family, V(none) for a device without neighbours, or V(auto).
          - V(auto), the default, takes it from table main, a DHCP lease or a router advertisement, and is not fooled
            by a VPN that replaced or halved the default route. So it is in a family for which none is stated.
          - A stated one that comes into use has to answer (ARP, neighbour discovery), see O(what_if).
        type: list
        elements: str
      table:
        description: The routing table. The next free one from O(numbers.table_base) unless given.
        type: str
      priority:
        description:
          - The priority of the first of the three rules for its addresses. Unless given, all identities of uplinks
            share one, and so do all identities of tunnels.
          - It must stand 200 to 296 above O(numbers.priority_base) for an uplink, and 300 to 597 above it for a tunnel.
            With the default base, these are V(2200) to V(2296) and V(2300) to V(2597).
        type: int
      backstop:
        description:
          - While its egress is gone, refuse packets of the identity rather than let them leave by another device.
        type: bool
        default: true
      required:
        description: Whether the task also fails if the identity is pending, that is if its egress or address is not
          there.
        type: bool
        default: false
      destinations:
        description:
          - Prefixes that unbound traffic reaches by this identity. They become routes in table main as long as its
            address is there.
        type: list
        elements: str
      destinations_backstop:
        description: While the egress is gone, make these prefixes unreachable rather than reached another way.
        type: bool
        default: false
      outer:
        description: How the tunnel's own packets are told from others, so that they never enter a tunnel.
        type: dict
        suboptions:
          fwmark:
            description: Their mark, as V(0xca6c) or V(0x100/0xff00).
            type: str
          uidrange:
            description: The user whose process created the socket that they leave by, as V(990-990).
            type: str
      mtu:
        description:
          - The MTU of its default route, in bytes, 1280 to 65520. From 68 if O(identities[].families) is IPv4 alone.
        type: int
      advmss:
        description: The maximum segment size in bytes that TCP announces by its default route.
        type: int
      pin:
        description:
          - Sockets that cannot bind an address and leave by this identity all the same, told by what they send from.
            Each entry needs O(identities[].pin[].sport) with O(identities[].pin[].ipproto), or
            O(identities[].pin[].uidrange); of several, all must match.
          - It decides for packets of sockets that have chosen no source, as a client without C(bind) sends them. A
            service on the wildcard address that is asked by both addresses would answer both by this identity; no rule
            helps there, let it bind each address.
        type: list
        elements: dict
        suboptions:
          ipproto:
            description: The IP protocol, as V(tcp), V(udp), or a number.
            type: str
          sport:
            description: The source port, as V(53) or V(1000-2000).
            type: str
          uidrange:
            description:
              - The user whose process created the socket, as V(990-990). A daemon that gives up root afterwards does
                not match, and user 0 is refused, for it also stands for what the kernel itself sends.
            type: str
      follow_connections:
        description:
          - Whether connections that come in by this identity's egress and are forwarded, as a port to a container, are
            answered by it. The host's own replies do not need it. It takes O(mark) and the program C(nft).
          - With strict reverse-path filtering on the egress, IPv4 needs O(sysctls=src_valid_mark) as well; a warning
            says so.
        type: bool
        default: false
      families:
        description: The address families in which it exists.
        type: list
        elements: str
        choices: [ipv4, ipv6]
        default: [ipv4, ipv6]
  local_networks:
    description:
      - Host-internal networks (containers, virtual machines) that every identity must keep reaching, as devices,
        patterns or prefixes.
      - V(auto), the default, stands for the bridges without an uplink port.
    type: list
    elements: str
    default: [auto]
  unbound:
    description:
      - Where traffic goes whose socket has chosen no source. V(keep) leaves that to table main as the user and the VPN
        client made it; the name of an identity sends it there.
    type: str
    default: keep
  unbound_local:
    description:
      - If O(unbound) names an identity, V(main) lets the specific routes of table main win over it, as VPN clients do.
        These include what the local network puts there, as DHCP does.
    type: str
    choices: [none, main]
    default: none
  unbound_backstop:
    description:
      - A kill switch. If O(unbound) names an identity, refuse unbound traffic rather than let it leave another way
        while the identity has no way out, in both address families, also in one that the identity lacks. Host-internal
        networks, and with O(unbound_local=main) the specific routes of table main, are still reached.
      - For IPv6 it makes a device of its own, C(fleetvpn0), which leads nowhere. Sockets that are bound to the uplink's
        device, and those that have chosen the outside address, are not unbound.
    type: bool
    default: false
  mark:
    description:
      - Marks for O(identities[].follow_connections), as the first one and the mask of the field that they may use, such
        as V(0x1000000/0xf000000). Each identity that is followed takes the next value of the field; the bits outside it
        stay as other programs set them. A mask is required, for nobody's marks are alone on a host.
      - If O(unbound) names an identity, flows that came in by an uplink get a mark too. Forwarded ports of an outside
        address then keep working where O(unbound_forwarded) takes a container's traffic along, and what the host says
        about them (a packet was too big) finds its way.
    type: str
  unbound_forwarded:
    description: Input devices, or patterns, whose forwarded traffic goes along with unbound traffic.
    type: list
    elements: str
  sysctls:
    description:
      - Kernel settings that may be changed where this host needs it. Nothing is changed that is not named here; what is
        changed is listed in RV(plan), and put back when it is no longer asked for or the set is removed.
      - V(rp_filter) makes reverse-path filtering strict on the uplinks, so that IPv4 packets for an inside address that
        come in by them are dropped.
      - V(arp) keeps the host from answering and announcing on an uplink's LAN addresses that sit on other devices
        (C(arp_ignore) 1, C(arp_announce) 2).
      - V(use_oif_addrs_only) lets an IPv6 socket without a source take one of the uplink's own addresses or none, also
        while they are deprecated or tentative.
      - V(src_valid_mark) lets strict reverse-path filtering pass what O(identities[].follow_connections) follows, on
        the egress of that identity.
    type: list
    elements: str
    choices: [rp_filter, arp, use_oif_addrs_only, src_valid_mark]
  strict_egress:
    description:
      - The egress guard, an nftables table of the set's own, C(inet fleetvpn). It drops what would leave by a wrong
        device although the rules are right, or because somebody flushed them. These are packets of sockets that are
        bound to a device, replies of ports that are forwarded to a container, IPv6 packets that take an inside address
        as their source on the uplink, and packets that are forwarded with a source from a pool.
      - V(true) guards every identity that has a backstop (O(identities[].backstop)). The addresses and pools of a
        tunnel leave by its egress and towards host-internal networks alone, the addresses of an uplink by no tunnel,
        and by a tunnel no address of this host that is neither the tunnel's nor an identity's.
      - V(any) guards the uplinks as well against addresses that nobody declared. By an uplink no address of this host
        leaves that is not on that device, which is too strict for a service address on C(lo).
      - Where the program C(nft) is missing, V(true) is a warning and V(any) is refused. Other tables are neither looked
        at nor changed.
    type: str
    choices: ["true", any, "false"]
    default: "true"
  strict_ingress:
    description:
      - Whether packets to an address of a tunnel are dropped that come in by another device than its egress, a
        host-internal one or C(lo) (CVE-2019-14899). It needs C(nft).
    type: bool
    default: false
  numbers:
    description: Where the rules and tables of this set stand, and the numbers that say that they are its own.
    type: dict
    suboptions:
      priority_base:
        description:
          - The first of 1000 rule priorities. V(2000) for the first set of a host, the next free block for another one,
            unless given. V(1) to V(31766), so that all of them stand ahead of the rule for table main.
        type: int
      table_base:
        description: The first table number to choose from, V(256) or more. V(2000) unless given.
        type: int
      protocol:
        description:
          - The routing protocol number of all rules and routes of the set, V(5) to V(255) except V(152), that of single
            tasks. V(151) unless given.
        type: int
      group:
        description: The device group of tunnel devices, V(1) or more. V(151) unless given.
        type: int
  set:
    description:
      - The name of this declaration. A host may have several sets, for instance of several authors.
      - Sets never remove what another one owns, and they may not share an address, a pool, a table or a priority.
    type: str
    default: main
  prune:
    description: Remove what the set owns and the declaration does not ask for any more.
    type: bool
    default: true
  adopt:
    description:
      - Take over what somebody else made and this declaration asks for. That is a rule that equals one of the set but
        for its protocol, and a route in a table of the set that leads the same way to the same destination with the
        same metric. A rule is removed once that of the set stands beside it, a route is exchanged in one step, so that
        at no time either is missing.
      - Unless it is set, such a rule is named in a warning and stays, and such a route is refused. What belongs to
        another set or to the kernel itself is never taken over.
      - What was taken over belongs to the set. It goes when the set goes or does not ask for it any more, and nothing
        puts back what was there before; only a change that fails, or that is not confirmed, does.
      - It is done by this task alone, not by the program on the host. Whatever made the rule or route has to be told as
        well, or it makes it anew at its next start.
    type: bool
    default: false
  what_if:
    description:
      - What becomes of a change that would go wrong. Before anything is changed, and in check mode, the kernel is asked
        what it would answer afterwards, in a network namespace without a name that holds a copy of this host's devices,
        addresses, rules, routes and sysctls, as far as they decide about the flows that are asked for. The host is not
        touched, and nothing of it is left, not even if the module is killed.
      - V(enforce) refuses a change after which a path of an identity or of O(paths) would be wrong, V(report) warns,
        V(skip) does not ask.
      - So it does with a change after which the replies of the SSH connection that this task came by would not arrive,
        as they would have no way out, or neither go by the device and gateway of today nor by the declared egress of
        the identity whose address the controller is connected to, with a gateway that answers.
      - What else is connected now is asked for, too. RV(connections) lists what would go another way. That refuses
        nothing; a warning says what would have no way any more.
      - A change is refused that begins to use a gateway of O(identities[].gateway) which does not answer within two
        seconds, on a device that is up. A router that is away later is no reason.
      - Where the copy answers otherwise than the host before the change, by a redirect, a neighbour that does not
        answer, a nexthop object, a VRF, or a table with thousands of routes, RV(paths[].unjudged) says so, and the
        change is not refused for that flow. Not asked for are marks that nftables sets, and path MTUs.
      - To make the namespace takes the capability CAP_SYS_ADMIN, as root has it, and the kernel's module veth. Without,
        a warning says that nothing was asked.
    type: str
    choices: [enforce, report, skip]
    default: enforce
  confirm:
    description:
      - How a change is confirmed. Before anything is changed in the kernel, what takes the change back is written down
        on the host, and a process that has nothing to do with this task undoes the change unless it is confirmed in
        time. Reboot, loss of power, and the end of controller or module lead back to the earlier state as well.
      - While a change waits for its confirmation, another one on the same host is refused with a line that says who
        holds the host and for how long. A task that has nothing to change never is.
    type: dict
    suboptions:
      by:
        description:
          - V(reconnect), the default, makes a new connection from the controller to the host after the change and
            confirms by it. It costs one round trip if something has changed in the kernel, and nothing otherwise.
          - V(probe) reaches O(confirm.port) at O(confirm.address) from the host itself. It needs no controller, and
            serves C(ansible-pull), local connections, and hosts that ask for a one-time password.
          - V(none) does not confirm, and is the default if O(netns) names another namespace than that of the
            connection.
          - A local connection is refused with V(reconnect), since it proves nothing.
        type: str
        choices: [reconnect, probe, none]
      timeout:
        description: Seconds after which a change that is not confirmed is undone, V(1) to V(3600).
        type: int
        default: 30
      address:
        description: The address that a probe reaches.
        type: str
      port:
        description: The TCP port that a probe reaches.
        type: int
  expires:
    description:
      - When the host removes this set by itself, for a temporary exception. A date and a time with its zone, as
        V(2026-12-24T18:00:00+01:00).
      - The host does so without a controller, also if it was off or asleep at that time. A task that is run after it
        removes the set as with O(state=absent) if it is still there, and warns.
      - The set has to be persistent, and not of another network namespace.
    type: str
  persistent:
    description:
      - Keep the declaration in C(/etc/fleetvpn) and install the on-host program with its units, so that the host is
        right again after a reboot. The default is V(true), and V(false) with O(netns).
    type: bool
  state:
    description: V(absent) removes the whole set.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: fleetvpn.routing.path_check
  - module: fleetvpn.routing.endpoint_info
notes:
  - Rules for stated addresses and pools, and with them their backstops, need neither device nor address. They are in
    place before the VPN first comes up.
  - Of a change that the host stood against (a path that would be wrong, a gateway that does not answer, somebody else's
    object), it keeps nothing but why, so that RV(fleetvpn.routing.endpoint_info#module:refused) tells it until a change
    of that set is accepted. Check mode keeps nothing, and neither does an option that is wrong in itself.
author:
  - fleetvpn.routing contributors (@fleetvpn)
"""

EXAMPLES = r"""
- name: Inside address by WireGuard, outside address by the uplink
  fleetvpn.routing.endpoint:
    identities:
      - name: outside
        interface: auto
      - name: inside
        tunnel: {type: wireguard, connection: wg0}

- name: The same, and proof that replies to the Internet leave by the identity that was asked
  fleetvpn.routing.endpoint:
    identities:
      - name: outside
        interface: auto
      - name: inside
        tunnel: {type: openvpn, connection: corp}
        pools: [10.8.0.0/16, "fd00:8::/48"]
    paths:
      - {from: inside, to: 203.0.113.5, ipproto: tcp, sport: "443", expect: {identity: inside}}
      - {from: outside, to: 10.1.0.5, expect: {identity: outside}}
      - {to: 203.0.113.5, expect: unchanged}

- name: Everything unbound by the tunnel as well, local networks as main knows them
  fleetvpn.routing.endpoint:
    identities:
      - name: outside
        interface: auto
      - name: inside
        tunnel: {type: wireguard, connection: wg0}
        outer: {fwmark: "0xca6c"}
    unbound: inside
    unbound_local: main

- name: From the host itself, where no controller can confirm
  fleetvpn.routing.endpoint:
    identities:
      - name: outside
        interface: auto
      - name: inside
        tunnel: {type: wireguard, connection: wg0}
    keep_paths:
      - {from: outside, to: 203.0.113.5}
    confirm:
      by: probe
      address: 203.0.113.5
      port: 443

- name: One more network by the VPN, for as long as the exception was granted
  fleetvpn.routing.endpoint:
    set: exception
    routes:
      - {dst: 203.0.113.0/24, dev: wg0}
    expires: "2026-12-24T18:00:00+01:00"

- name: As it was before
  fleetvpn.routing.endpoint:
    state: absent
"""

RETURN = r"""
plan:
  description: The changes in their order, made or, in check mode, announced.
  returned: always
  type: list
  elements: dict
  contains:
    op:
      description: V(add), V(replace), V(remove), or V(set) for a device group or a sysctl.
      type: str
    kind:
      description: V(guard), V(link), V(rule), V(route), V(group), V(sysctl), V(table) for a table's name, or V(file).
      type: str
    family:
      description: V(ipv4), V(ipv6), or nothing.
      type: str
    text:
      description:
        - The object as iproute2 writes it, with numbers for the names of tables. A foreign rule that O(adopt) removes
          has its protocol with it.
      type: str
      sample: "2301:\tfrom 198.51.100.10 iif lo lookup 2002"
identities:
  description: Every identity as found, one entry for each egress.
  returned: always
  type: list
  elements: dict
  contains:
    key:
      description: The identity's name; for a further egress with the device behind a dot.
      type: str
    name:
      description: The identity's name.
      type: str
    interface:
      description: The egress.
      type: str
    addresses:
      description: Its addresses.
      type: list
      elements: str
    pools:
      description: Its pools.
      type: list
      elements: str
    gateways:
      description: The gateways, at most one for each family.
      type: list
      elements: str
    table:
      description: The number of its table.
      type: int
    priority:
      description: The priority of the first rule that looks its table up.
      type: int
    verdict:
      description:
        - V(proven) if the kernel gives the declared path, V(pending) if egress or address is not there (the backstop
          holds) or no IPsec policy covers it where policies are the tunnel, V(wrong) otherwise. In check mode, if
          something would be changed, what it would be, or nothing if that is not known.
      type: str
paths:
  description: The paths that were asked for, those of every identity and those of O(paths).
  returned: always
  type: list
  elements: dict
  contains:
    identity:
      description: Whose source the packet carries.
      type: str
    family:
      description: 4 or 6.
      type: int
    flow:
      description: The flow as C(ip route get) takes it.
      type: str
    from:
      description: The source that was asked with.
      type: str
    to:
      description: The destination.
      type: str
    dev:
      description: The device.
      type: str
    gateway:
      description: The gateway.
      type: str
    src:
      description: The source of the packet.
      type: str
    table:
      description: The table that decided.
      type: int
    type:
      description: The type of the route, or the kind of error.
      type: str
    unconnected:
      description: The same keys for a socket that is not connected, where they differ.
      type: dict
    verdict:
      description:
        - V(proven), V(pending), V(wrong), or nothing if nothing was expected.
        - In check mode, if something would be changed, what it would be, or nothing if RV(paths[].unjudged).
      type: str
    before:
      description: The answer before the change.
      type: dict
    planned:
      description:
        - The answer that was foreseen before the change, with the keys of RV(paths[].before). In check mode, if
          something would be changed, there is no other.
        - Nothing if nothing would be changed, or if it is not known. See O(what_if).
      type: dict
    unjudged:
      description: Why nothing was foreseen.
      type: str
    differs:
      description: In what it is not as expected.
      type: list
      elements: str
management:
  description:
    - The replies of the SSH connection that this task came by, before the change and as foreseen.
    - Nothing if nothing would be changed, if the task did not come by SSH, or with O(what_if=skip).
  returned: always
  type: dict
  contains:
    flow:
      description: The flow as C(ip route get) takes it.
      type: str
    before:
      description: The answer before the change, with the keys of RV(paths[].before).
      type: dict
    planned:
      description: The answer that was foreseen.
      type: dict
    unjudged:
      description: Why nothing was foreseen.
      type: str
connections:
  description:
    - The live connections of this host, TCP and connected UDP, whose packets would go another way, or may. Those to
      this host itself and RV(management) are not among them. Several that no rule can tell apart are one.
    - None if nothing would be changed, or with O(what_if=skip). At most 32 are judged; a warning says if there are
      more.
  returned: always
  type: list
  elements: dict
  contains:
    flow:
      description: What is sent, as C(ip route get) takes it.
      type: str
    before:
      description: The answer before the change, with the keys of RV(paths[].before).
      type: dict
    planned:
      description: The answer that was foreseen.
      type: dict
    unjudged:
      description: Why nothing was foreseen.
      type: str
numbers:
  description: The numbers in use by this set.
  returned: always
  type: dict
tunnels:
  description: The VPN client of each tunnel identity, as found.
  returned: always
  type: list
  elements: dict
  contains:
    identity:
      description: The identity.
      type: str
    type:
      description: The kind of VPN.
      type: str
    manager:
      description: What starts it.
      type: str
    connection:
      description: The client's name for it.
      type: str
    interface:
      description: The device.
      type: str
    needs:
      description: What has to be changed in how it is started, V(table_off) if wg-quick must start it with
        C(Table = off), V(charon) if strongSwan does not know RV(tunnels[].settings) yet, V(hook) if a file that the
        client waits for is missing.
      type: list
      elements: str
    hooks:
      description: The files by which the client has to be made to wait.
      type: list
      elements: str
    settings:
      description: Settings of the client that keep it clear of our tables and rules, as strongSwan's section C(charon)
        takes them.
      type: dict
guard:
  description: The egress guard.
  returned: always
  type: dict
  contains:
    state:
      description:
        - V(present), or V(absent) if none is asked for. V(missing) if the program C(nft) is missing, V(unsupported) if
          it or the kernel cannot do what is needed.
      type: str
    table:
      description: The nftables table, as nft names it.
      type: str
confirm:
  description: What became of the confirmation.
  returned: always
  type: dict
  contains:
    state:
      description:
        - V(confirmed), V(unconfirmed) (the task fails, and the change is undone), or nothing if nothing had to be
          confirmed. V(armed) while the change waits for it.
      type: str
    token:
      description: The token of the change.
      type: str
    timeout:
      description: Seconds after which it is undone if nobody confirms.
      type: int
    command:
      description: The command that confirms it on the host.
      type: list
      elements: str
program:
  description: The on-host program, which is there as long as any set is persistent.
  returned: always
  type: dict
  contains:
    path:
      description: Where it is.
      type: str
    version:
      description: Its version after this run, nothing if it is not there. A newer one than this collection's stays.
      type: str
    changed:
      description: Whether it was installed, replaced or removed.
      type: bool
    units_changed:
      description: Whether a unit file was written or removed. Loading, enabling and starting is not done here.
      type: bool
    systemd:
      description: Whether this host was booted with systemd.
      type: bool
    boot_enabled:
      description: Whether the unit is enabled that applies the sets at boot.
      type: bool
    watch_active:
      description: Whether the unit that watches is enabled and runs.
      type: bool
    networkd_dropin:
      description: Whether role P(fleetvpn.routing.endpoint#role) has told systemd-networkd to leave what others made.
      type: bool
"""

from ansible_collections.fleetvpn.routing.plugins.module_utils._ansible import run
from ansible_collections.fleetvpn.routing.plugins.module_utils._endpoint import ensure_endpoint
from ansible_collections.fleetvpn.routing.plugins.module_utils._endpoint_spec import ENDPOINT


def main() -> None:
    """Run the module."""
    run(ENDPOINT, ensure_endpoint)


if __name__ == "__main__":
    main()
