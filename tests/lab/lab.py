# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: makes hosts and cables, knows the parts of the topology, and removes everything."""

from __future__ import annotations

import atexit
import concurrent.futures
import dataclasses
import functools
import pathlib
import signal
import sys
import threading
import types
import typing as t

from . import addresses as plan
from . import topology
from .capture import Capture
from .holders import Holders
from .host import Host
from .inventory import write_inventory
from .machines import Machine
from .nebula import Nebula, NebulaGateway
from .openconnect import Openconnect, OpenconnectGateway
from .openvpn import Openvpn, OpenvpnGateway
from .ppp import Ppp
from .probes import Answer, Conversation, Probe
from .responder import PORT, Responder
from .runs import Run
from .standin import Standin
from .strongswan import Strongswan, StrongswanGateway
from .survey import Row, survey
from .tinc import Tinc, TincGateway
from .tunnel import MODES, Client, Tunnel, connect
from .wireguard import Wireguard, WireguardGateway

# The tunnels that there are: what makes the client's end, and the attribute of Lab that is its other end.
KINDS: dict[str, tuple[t.Callable[..., Tunnel], str]] = {
    "ipsec": (Strongswan, "strongswan_gateway"),
    "nebula": (Nebula, "nebula_gateway"),
    "openconnect": (Openconnect, "openconnect_gateway"),
    "openvpn": (Openvpn, "openvpn_gateway"),
    "ppp": (Ppp, "gateway"),
    "standin": (Standin, "gateway"),
    "tinc": (Tinc, "tinc_gateway"),
    "wireguard": (Wireguard, "wireguard_gateway"),
}
POOLS = {
    "ipsec": plan.IPSEC_POOL,
    "nebula": plan.NEBULA_POOL,
    "openconnect": plan.OPENCONNECT_POOL,
    "openvpn": plan.OPENVPN_POOL,
    "ppp": plan.PPP_POOL,
    "standin": plan.OTHER_POOL,
    "tinc": plan.TINC_POOL,
    "wireguard": plan.WIREGUARD_POOL,
}


class Lab:
    """A context manager: an Internet (`router`, `outside`), a corporate network (`gateway`, `corporate`), clients.

    keepalive: OpenVPN's interval and timeout, seconds.
    """

    def __init__(self, *, keepalive: tuple[int, int] = (2, 6)) -> None:
        self._run = Run()
        self._closing: list[t.Callable[[], None]] = [self._run.close]
        atexit.register(self.close)
        _exit_on_signals()
        try:
            self._build(keepalive)
        except BaseException:
            self.close()
            raise

    def _build(self, keepalive: tuple[int, int]) -> None:
        self._holders = Holders(self._run)
        self._cables: list[tuple[Host, str, Host]] = []
        self._plugs: dict[str, t.Callable[[], tuple[str, str]]] = {}
        self._closing.append(self._holders.close)
        self._responder: Responder | None = None
        self.hosts: dict[str, Host] = {}
        self.clients: list[Client] = []
        self.router, self.outside = topology.internet(self)
        self.gateway, self.corporate = topology.corporate(self, self.router)
        self._keepalive = keepalive
        self._wireguard: WireguardGateway | None = None
        self._openvpn: OpenvpnGateway | None = None
        self._strongswan: StrongswanGateway | None = None
        self._tinc: TincGateway | None = None
        self._nebula: NebulaGateway | None = None
        self._openconnect: OpenconnectGateway | None = None
        self._lans: dict[int, tuple[Host, Host]] = {}
        self._counts: dict[str, int] = {}

    @classmethod
    def fleet(cls, count: int = 6, *, mode: str = "split") -> Lab:
        """A lab with clients, tunnels up: half WireGuard, half OpenVPN; one IPv6-only inside, one with a /32 outside.

        Every even one is WireGuard. Client 2 has no inside IPv4 address, client 3 is the cloud host, client 0 and 1
        have containers.
        """
        lab = cls()
        try:
            for number in range(count):
                lab.client(
                    f"c{number}",
                    ("wireguard", "openvpn")[number % 2],
                    mode=mode,
                    families=(6,) if number == 2 else (4, 6),
                    cloud=number == 3,
                    container=number < 2,
                )
            lab.start()
        except BaseException:
            lab.close()
            raise
        return lab

    # -- building -------------------------------------------------------------------------------------------------

    def host(self, name: str, *, private: bool = False) -> Host:
        """A new host without devices, but with lo. Without `private` it has this machine's /etc and /run."""
        self.hosts[name] = self._holders.make(name, private=private)
        return self.hosts[name]

    def _machine(self, name: str) -> Host:
        machine = Machine(self.run_id, name)
        self._closing.append(machine.close)
        self.hosts[name] = machine.host
        return machine.host

    def link(self, one: Host, device: str, other: Host, peer: str, *, bridge: str | None = None) -> None:
        """A cable between two hosts, both ends up; the first end a port of a bridge if so said."""
        end: dict[str, t.Any] = {"ifname": peer, "net_ns_pid": other.pid}
        one.batch().add("link", "add", ifname=device, kind="veth", peer=end).send()
        self._cables.append((one, device, other))
        if bridge:
            one.batch().add("link", "set", index=one.index(device), master=one.index(bridge)).send()
        connect(one, device, other, peer)

    def lan(self, number: int = 0) -> tuple[Host, Host]:
        """A LAN's second router and neighbour; the LAN is made when it is first asked for."""
        if number not in self._lans:
            self._lans[number] = topology.lan(self, self.router, number)
        return self._lans[number]

    def client(
        self,
        name: str,
        kind: str = "wireguard",
        *,
        mode: str = "split",
        families: t.Sequence[int] = (4, 6),
        cloud: bool = False,
        container: bool = False,
        pod: bool = False,
        rp_filter: int = 0,
        systemd: bool = False,
    ) -> Client:
        """A new client, its tunnel configured and not yet started.

        kind is one of KINDS, mode one of MODES, families those that it has inside. With systemd it is a container of
        podman, which cannot be rebooted here.
        """
        if mode not in MODES or (mode == "auto" and kind != "wireguard"):
            raise ValueError(f"mode: {mode}: one of {', '.join(MODES)}; auto for wireguard only")
        host = self._machine(name) if systemd else self.host(name, private=True)
        self._plugs[name] = self._plug(host, cloud, rp_filter)
        outside = self._plugs[name]()
        tunnel, inside = self._tunnel(kind, host, families, mode)
        client = Client(host, mode, inside, outside, tunnel)
        self._populate(client, container=container, pod=pod)
        self.clients.append(client)
        return client

    def second_uplink(self, client: Client, lan: int = 1) -> tuple[str, str]:
        """Give a client a device `up1` in a LAN, 0 being that of the first clients; its addresses there."""
        self.lan(lan)
        return topology.second_uplink(self, self.router, client.host, lan, self._next("second"))

    def _plug(self, host: Host, cloud: bool, rp_filter: int) -> t.Callable[[], tuple[str, str]]:
        """What gives a client its place in the topology, at first and after each reboot."""
        if cloud:
            plug = functools.partial(topology.cloud_client, self, self.router, host, self._next("cloud"))
        else:
            number, position = divmod(self._next("lan"), plan.CLIENTS_PER_LAN)
            self.lan(number)
            plug = functools.partial(topology.lan_client, self, self.router, host, number, position)

        def plugged() -> tuple[str, str]:
            topology.quiet(host, rp_filter=rp_filter)
            return plug()

        return plugged

    def reboot(self, client: Client, *, first: t.Callable[[Host], object] | None = None) -> None:
        """Power off, power on: files remain, /run, rules, routes and devices do not; the tunnel is not started.

        first: what runs while there is no network yet. A second uplink does not come back.
        """
        gone = [host for host in (client.host, client.container, client.pod) if host is not None]
        for host in gone:
            if self._responder is not None:
                self._responder.forget(host)
            self._holders.halt(host)
        self._unplug(gone)
        self._holders.boot(client.host)
        if first is not None:
            first(client.host)
        self._plugs[client.name]()
        # It has other hardware addresses now than its neighbours remember.
        for neighbour in (self.router, *(host for pair in self._lans.values() for host in pair)):
            neighbour.run(["ip", "neigh", "flush", "all"])
        self._populate(client, container=client.container is not None, pod=client.pod is not None)

    def _unplug(self, gone: t.Sequence[Host]) -> None:
        """Remove the other ends of their cables at once; left to the kernel, it would take a moment."""
        for one, device, other in self._cables:
            if other in gone and one not in gone:
                one.remove(device)
        self._cables = [cable for cable in self._cables if cable[0] not in gone and cable[2] not in gone]

    def _populate(self, client: Client, *, container: bool, pod: bool) -> None:
        client.container = topology.containers(self, client.host) if container else None
        client.pod = topology.pod(self, client.host) if pod else None

    def _tunnel(self, kind: str, host: Host, families: t.Sequence[int], mode: str) -> tuple[Tunnel, tuple[str, ...]]:
        both = plan.inside(POOLS[kind], self._next(kind))
        inside = tuple(address for address, family in zip(both, (4, 6), strict=True) if family in families)
        make, gateway = KINDS[kind]
        return make(host, getattr(self, gateway), inside, mode), inside

    def _next(self, what: str) -> int:
        self._counts[what] = self._counts.get(what, -1) + 1
        return self._counts[what]

    @property
    def wireguard_gateway(self) -> WireguardGateway:
        """The gateway's WireGuard, made when it is first asked for."""
        if self._wireguard is None:
            self._wireguard = WireguardGateway(self.gateway)
        return self._wireguard

    @property
    def openvpn_gateway(self) -> OpenvpnGateway:
        """The gateway's OpenVPN, made when it is first asked for."""
        if self._openvpn is None:
            directory = self._run.directory / "openvpn"
            self._openvpn = OpenvpnGateway(self.gateway, directory, self._keepalive)
        return self._openvpn

    @property
    def strongswan_gateway(self) -> StrongswanGateway:
        """The gateway's strongSwan, made when it is first asked for."""
        if self._strongswan is None:
            self._strongswan = StrongswanGateway(self.gateway)
        return self._strongswan

    @property
    def tinc_gateway(self) -> TincGateway:
        """The gateway's tinc, made when it is first asked for."""
        if self._tinc is None:
            self._tinc = TincGateway(self.gateway)
        return self._tinc

    @property
    def nebula_gateway(self) -> NebulaGateway:
        """The gateway's Nebula, made when it is first asked for."""
        if self._nebula is None:
            self._nebula = NebulaGateway(self.gateway, self._run.directory / "nebula")
        return self._nebula

    @property
    def openconnect_gateway(self) -> OpenconnectGateway:
        """The gateway's ocserv, made when it is first asked for."""
        if self._openconnect is None:
            self._openconnect = OpenconnectGateway(self.gateway, self._run.directory / "openconnect")
        return self._openconnect

    @property
    def run_id(self) -> str:
        """What is between the prefix and the host in the names of this run's namespaces."""
        return self._run.id

    # -- using ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring all tunnels up, side by side."""
        for client in self.clients:
            client.tunnel.begin()
        for client in self.clients:
            client.tunnel.finish()

    def serve(self, *hosts: Host, port: int = PORT, address: str = "::") -> None:
        """Have hosts answer TCP and UDP with their name and the source they saw."""
        if self._responder is None:
            self._responder = Responder()
            self._closing.append(self._responder.close)
        for host in hosts:
            self._responder.listen(host, port=port, address=address)

    def capture(self, host: Host, *, settle: float = 0.1) -> Capture:
        """Everything that passes a host's devices while the context lasts. settle: wait for late packets, seconds."""
        return Capture(host, settle=settle)

    def probe(self, host: Host, to: str, proto: str = "icmp", **how: t.Any) -> Answer:
        """Send one probe and wait for its answer; the options are those of Probe."""
        return Probe(host, to, proto, **how).ask()

    def probes(self, probes: t.Sequence[Probe]) -> list[Answer]:
        """Ask many at once; answers in the same order."""
        with concurrent.futures.ThreadPoolExecutor(max_workers=128) as pool:
            return list(pool.map(Probe.ask, probes))

    def conversation(self, host: Host, to: str, **how: t.Any) -> Conversation:
        """A TCP connection that stays open."""
        return Conversation(Probe(host, to, "tcp", **how))

    def survey(self, clients: t.Sequence[Client] | None = None, *, timeout: float = 2.0) -> list[Row]:
        """For each client: do the Internet's questions to I, and the corporate network's to O, get their answers?"""
        asked = self.clients if clients is None else clients
        self.serve(*(client.host for client in asked))
        return survey(asked, self.outside, self.corporate, functools.partial(self._ask_all, timeout))

    def _ask_all(self, timeout: float, probes: t.Sequence[Probe]) -> list[Answer]:
        return self.probes([dataclasses.replace(probe, timeout=timeout) for probe in probes])

    def inventory(self, path: pathlib.Path, *, python: str = sys.executable) -> pathlib.Path:
        """Write an inventory for Ansible: groups vpn_endpoints, wireguard, openvpn."""
        return write_inventory(path, self.clients, python)

    # -- ending ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, remove all namespaces and files. May be called twice."""
        atexit.unregister(self.close)
        while self._closing:
            self._closing.pop()()


def _exit_on_signals() -> None:
    """SIGTERM and SIGHUP end the process by an exception, so that contexts and atexit run."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, _frame: types.FrameType | None) -> t.NoReturn:
    raise SystemExit(128 + number)
