# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenVPN's ways to reconnect, with the real daemon: which scripts run, and with which rights and variables, differs
from one to the other. The watch follows the address in each, and nothing of the pool ever leaves by the uplink.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import typing as t

import pytest

from tests.functional.onhost import PROGRAM, declare, eventually, provide_pyroute2, status
from tests.functional.test_watch import Watch
from tests.lab import Client, Lab
from tests.lab import addresses as plan
from tests.lab.openvpn import Openvpn
from tests.lab.senders import no_leak, sending

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

SCRIPT, SAID = "/etc/openvpn/fvt-hook", "/run/fvt-hook"
PERSIST = ("persist-tun", "persist-key")
NOBODY = ("user nobody", "group nogroup", "persist-key")
USERS_HOOK = ("script-security 2", f"up {SCRIPT}", f"down {SCRIPT}")
MODES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "persist-tun": PERSIST,
    "persist-tun and up-restart": (*PERSIST, "script-security 2", "up /bin/true", "up-restart"),
    "user nobody": NOBODY,
    "user nobody and persist-tun": (*NOBODY, "persist-tun"),
    "user nobody and a hook": (*NOBODY, *USERS_HOOK),
}
IDENTITIES = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "tunnel": {"type": "openvpn", "connection": "corp"}, "pools": list(plan.OPENVPN_POOL)},
]
SOON = 2.0  # seconds from the reconnect to an answer by the new address, on a machine that others use as well
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    with Lab() as lab:
        lab.serve(lab.outside, lab.corporate)
        yield lab


class Connect(t.Protocol):
    """Brings up a client with more lines in its file."""

    def __call__(self, *options: str, mode: str = "split") -> Client: ...


@pytest.fixture
def connect(lab: Lab) -> t.Iterator[Connect]:
    """Clients with the collection's files and the tunnel up."""
    made: list[Client] = []

    def up(*options: str, mode: str = "split") -> Client:
        client = lab.client(f"o{next(_NUMBERS)}", "openvpn", mode=mode)
        provide_pyroute2(client.host)
        _write_hook(client)
        assert isinstance(client.tunnel, Openvpn)
        client.tunnel.write(*options)
        client.up()
        made.append(client)
        return client

    yield up
    for client in made:
        with contextlib.suppress(LookupError):
            client.down()


def _write_hook(client: Client) -> None:
    """A user's own hook: it notes its rights, whether it has a PATH, and what became of a look at the host."""
    client.host.write(SAID, "", 0o666)
    lines = [
        "#!/bin/sh",
        "path=$(/usr/bin/tr '\\0' '\\n' </proc/self/environ | /usr/bin/grep -c ^PATH=)",
        f"[ ! -x {PROGRAM} ] || {PROGRAM} hook openvpn",
        f'echo "$script_type uid $(/usr/bin/id -u) path $path exit $?" >>{SAID}',
        "exit 0",
    ]
    client.host.write(SCRIPT, "\n".join(lines) + "\n", 0o755)


def right(lab: Lab, client: Client) -> bool:
    """The Internet's questions to I are answered, and by the tunnel alone."""
    lab.serve(client.host)
    with lab.capture(client.host) as seen:
        answers = [lab.probe(lab.outside, address, "tcp", timeout=0.25) for address in client.inside]
    return all(answers) and {d for a in client.inside for d in seen.left_by(source=a)} == {client.tunnel.device}


@pytest.mark.parametrize("mode", MODES)
def test_a_reconnect_is_followed(lab: Lab, connect: Connect, mode: str) -> None:
    client = connect(*MODES[mode])
    declare(client.host, identities=IDENTITIES)
    watch = Watch(client.host)
    assert right(lab, client)
    old = client.inside
    with no_leak(client.host, *old):
        client.renumber(old)  # the same address again
        eventually(lambda: right(lab, client), SOON)
    new = [plan.shifted(address, 100) for address in old]
    with no_leak(client.host, *old, *new) as seen:
        client.renumber(new)
        print(f"{mode}: {eventually(lambda: right(lab, client), SOON):.2f} s")
    assert client.tunnel.device in seen.left_by(source=new[0])
    assert [entry["verdict"] for entry in status(client.host)["sets"][0]["identities"]] == ["proven"] * 2
    with no_leak(client.host, *old, *new):
        client.tunnel.kill()
        client.up()
        eventually(lambda: right(lab, client), SOON)
    watch.end()


def test_a_hook_loses_its_rights_and_never_has_a_path(lab: Lab, connect: Connect) -> None:
    """Why no role installs one: it would work at the first connect, and at no other."""
    client = connect(*MODES["user nobody and a hook"])
    declare(client.host, identities=IDENTITIES)
    client.renumber([plan.shifted(address, 100) for address in client.inside])
    eventually(lambda: "up uid 65534" in client.host.read(SAID))
    first, *later = client.host.read(SAID).splitlines()
    assert first == "up uid 0 path 0 exit 0"
    assert {line.partition(" ")[2] for line in later} == {"uid 65534 path 0 exit 0"}
    # Without the watch the new address has no rule but that of the pool: closed, not open.
    with no_leak(client.host, *client.inside):
        assert not right(lab, client)


def test_without_pool_and_backstop_there_are_leaks(lab: Lab, connect: Connect) -> None:
    """The test above can fail."""
    client = connect()
    open_ = {**IDENTITIES[1], "pools": [], "backstop": False}
    declare(client.host, identities=[IDENTITIES[0], open_])
    watch = Watch(client.host)
    old, new = client.inside, [plan.shifted(address, 100) for address in client.inside]
    with sending(client.host, *old, *new) as seen:
        client.renumber(new)
        eventually(lambda: right(lab, client), SOON)
    assert {packet.source for packet in seen.packets(outgoing=True, dev="up0")} >= {*old}
    watch.end()
