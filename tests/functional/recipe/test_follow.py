# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`follow_connections`: a port of an address that is forwarded elsewhere is answered by the way it was asked."""

from __future__ import annotations

import socket
import subprocess
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import CORP, FOLLOW, INET, T_CORP, Endpoint, Question
from tests.lab import Host, Probe
from tests.lab import addresses as plan

PORT, BULK = 8080, 40000
FOLLOWED: dict[str, t.Any] = {**CORP, "follow_connections": True}
MARK: dict[str, t.Any] = {"mark": "0x1000000/0xf000000"}
STRICT: dict[str, t.Any] = {"sysctls": ["src_valid_mark"]}
FORWARD = """
table inet fvt_dnat {{
    chain in {{
        type nat hook prerouting priority dstnat;
        ip daddr {to4} meta l4proto {{ tcp, udp }} th dport 8080 dnat ip to {at4}:7000
        ip6 daddr {to6} meta l4proto {{ tcp, udp }} th dport 8080 dnat ip6 to [{at6}]:7000
        ip daddr {to4} tcp dport 8081 dnat ip to {at4}:7001
        ip6 daddr {to6} tcp dport 8081 dnat ip6 to [{at6}]:7001
    }}
}}
"""
# Another program's marks, on the same packets: all of its bits, and none of ours.
OTHERS = """
table inet fvt_mark {
    chain in {
        type filter hook prerouting priority mangle;
        meta mark set meta mark & 0xff00ffff | 0x00080000
    }
}
"""
# What wg-quick loads for a full tunnel: of UDP it restores the mark as a whole, and stores its own.
WG_QUICK = """
table {family} wg-quick-vpn0 {{
    chain premangle {{
        type filter hook prerouting priority -150;
        meta l4proto udp meta mark set ct mark
    }}
    chain postmangle {{
        type filter hook postrouting priority -150;
        meta l4proto udp meta mark 0xca6c ct mark set meta mark
    }}
}}
"""
SINK = f"""
import socket
family = socket.AF_INET6
server = socket.create_server(("::", 7001), family=family, dualstack_ipv6=True)
while True:
    peer, _address = server.accept()
    peer.settimeout(5)
    count = 0
    try:
        while count < {BULK}:
            count += len(peer.recv(65536)) or {BULK}
        peer.sendall(str(count).encode())
    except OSError:
        pass
    peer.close()
"""


@pytest.fixture
def endpoint(make: Make) -> t.Iterator[Endpoint]:
    endpoint = make(mode="identity")
    sink = endpoint.container.popen(["/usr/bin/python3", "-c", SINK], stdout=subprocess.DEVNULL)
    yield endpoint
    sink.kill()
    sink.wait()


def forward(endpoint: Endpoint, addresses: dict[int, str], at: tuple[str, str] = plan.CONTAINER) -> None:
    """Ports of these addresses go to a container, or to a host of the LAN."""
    text = FORWARD.format(to4=addresses[4], to6=addresses[6], at4=at[0], at6=at[1])
    endpoint.host.run(["nft", "-f", "-"], stdin=text)


def asked(endpoint: Endpoint, addresses: dict[int, str], host: Host, name: str) -> list[Question]:
    """From afar, by TCP and UDP."""
    return [
        Question(Probe(host, address, proto, port=PORT, timeout=1), name)
        for address in addresses.values()
        for proto in ("tcp", "udp")
    ]


def upload(host: Host, to: str) -> int:
    """How many bytes of a bulk arrive behind the forwarded port, by a path whose last link is narrower."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with host.socket(family, socket.SOCK_STREAM) as opened:
        opened.settimeout(4)
        try:
            opened.connect((to, 8081))
            opened.sendall(b"x" * BULK)
            return int(opened.recv(100) or 0)
        except OSError:
            return 0


class TestForwarded:
    @pytest.mark.parametrize("rp_filter", [0, 1, 2])
    def test_a_container_answers_by_the_tunnel(self, endpoint: Endpoint, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        forward(endpoint, endpoint.inside)
        found = endpoint.apply(FOLLOWED, INET, **MARK, **STRICT)
        assert not [text for text in found.warnings if "src_valid_mark" in text]
        questions = asked(endpoint, endpoint.inside, endpoint.lab.outside, endpoint.container.name)
        with endpoint.capture() as seen:
            assert endpoint.wrong(questions) == []
        for address in endpoint.inside.values():
            assert seen.left_by(source=address) == {"vpn0"}
        assert endpoint.wrong(endpoint.both(endpoint.neighbourhood), endpoint.both(endpoint.identities)) == []
        assert endpoint.wrong(endpoint.both(endpoint.unbound)) == []
        assert not endpoint.apply().changed

    @pytest.mark.parametrize("rp_filter", [0, 1, 2])
    def test_a_host_of_the_lan_does(self, endpoint: Endpoint, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        asker, neighbour = endpoint.lab.corporate, endpoint.lab.hosts["nbr0"]
        for at, family in ((0, 4), (1, 6)):
            back = ["route", "replace", plan.CORPORATE_HOST[at], "via", endpoint.outside[family], "dev", "up0"]
            neighbour.run(["ip", f"-{family}", *back])
        forward(endpoint, endpoint.inside, plan.in_lan(0, 200))
        endpoint.apply(FOLLOWED, INET, **MARK, **STRICT)
        assert endpoint.wrong(asked(endpoint, endpoint.inside, asker, "nbr0")) == []

    def test_without_it_nobody_answers(self, endpoint: Endpoint) -> None:
        forward(endpoint, endpoint.inside)
        endpoint.apply(CORP, INET)
        questions = asked(endpoint, endpoint.inside, endpoint.lab.outside, endpoint.container.name)
        assert len(endpoint.wrong(questions)) == len(questions)

    def test_without_the_first_rule_what_comes_in_is_sent_back(self, endpoint: Endpoint) -> None:
        forward(endpoint, endpoint.inside)
        endpoint.apply(FOLLOWED, INET, **MARK, strict_egress="false", local_networks=[])
        questions = asked(endpoint, endpoint.inside, endpoint.lab.outside, endpoint.container.name)
        assert endpoint.wrong(questions) == []
        endpoint.drop_rules(FOLLOW)
        assert len(endpoint.wrong(questions)) == len(questions)

    def test_without_src_valid_mark_strict_filtering_drops_ipv4_and_that_is_said(self, endpoint: Endpoint) -> None:
        endpoint.strict(1)
        forward(endpoint, endpoint.inside)
        found = endpoint.apply(FOLLOWED, INET, **MARK)
        assert [text for text in found.warnings if "sysctls: [src_valid_mark]" in text and "vpn0" in text]
        questions = asked(endpoint, endpoint.inside, endpoint.lab.outside, endpoint.container.name)
        assert [text for text in endpoint.wrong(questions) if endpoint.inside[4] in text]
        assert not [text for text in endpoint.wrong(questions) if endpoint.inside[6] in text]

    def test_an_uplink_is_followed_as_well(self, endpoint: Endpoint) -> None:
        """Even where a VPN has taken main's default."""
        endpoint.ip(
            *(
                f"{'-6' if ':' in wide else '-4'} route add {wide} dev vpn0"
                for wide in ("0.0.0.0/1", "128.0.0.0/1", "2000::/3")
            )
        )
        forward(endpoint, endpoint.outside)
        questions = asked(endpoint, endpoint.outside, endpoint.lab.outside, endpoint.container.name)
        endpoint.apply(CORP, INET)
        assert len(endpoint.wrong(questions)) == len(questions)
        endpoint.apply(CORP, {**INET, "follow_connections": True}, **MARK)
        assert endpoint.wrong(questions) == []


class TestFlushed:
    """Row e: the table is emptied in the middle of a connection."""

    def left(self, endpoint: Endpoint) -> set[str]:
        forward(endpoint, endpoint.inside)
        talks = [
            endpoint.lab.conversation(endpoint.lab.outside, address, port=PORT, timeout=0.5)
            for address in endpoint.inside.values()
        ]
        assert all(talk.ask() for talk in talks)
        endpoint.ip(f"route flush table {T_CORP}", f"-6 route flush table {T_CORP}")
        with endpoint.capture() as seen:
            assert not any(talk.ask() for talk in talks)
            time.sleep(0.3)
        for talk in talks:
            talk.close()
        return set().union(*(seen.left_by(source=address) for address in endpoint.inside.values()))

    def test_nothing_leaks(self, endpoint: Endpoint) -> None:
        endpoint.apply(FOLLOWED, INET, **MARK, strict_egress="false")
        assert self.left(endpoint) == set()

    def test_without_the_last_rule_it_does(self, endpoint: Endpoint) -> None:
        endpoint.apply(FOLLOWED, INET, **MARK, strict_egress="false")
        endpoint.drop_rules(FOLLOW + 3)
        assert self.left(endpoint) == {"up0"}


class TestTooBig:
    """Row f, and the same for a port of the outside address under a full tunnel: the path's MTU is found."""

    def narrow(self, endpoint: Endpoint) -> None:
        endpoint.ip("link set br0 mtu 1300")

    def test_what_the_host_says_of_a_followed_flow_follows_it(self, endpoint: Endpoint) -> None:
        self.narrow(endpoint)
        forward(endpoint, endpoint.inside)
        endpoint.apply(FOLLOWED, INET, **MARK, strict_egress="false")
        with endpoint.capture() as seen:
            assert [upload(endpoint.lab.outside, address) for address in endpoint.inside.values()] == [BULK] * 2
        for at, proto in ((0, "icmp"), (1, "icmp6")):
            assert seen.left_by(proto=proto, destination=plan.OUTSIDE_HOST[at]) == {"vpn0"}

    def test_without_the_output_chain_it_leaves_by_the_uplink(self, endpoint: Endpoint) -> None:
        self.narrow(endpoint)
        forward(endpoint, endpoint.inside)
        endpoint.apply(FOLLOWED, INET, **MARK, strict_egress="false")
        endpoint.host.run(["nft", "flush", "chain", "inet", "fleetvpn", "follow_out"])
        with endpoint.capture() as seen:
            upload(endpoint.lab.outside, endpoint.inside[4])
        assert "up0" in seen.left_by(proto="icmp", destination=plan.OUTSIDE_HOST[0])

    @pytest.mark.parametrize("marked", [True, False])
    def test_of_the_outside_address_under_a_full_tunnel(self, endpoint: Endpoint, marked: bool) -> None:
        self.narrow(endpoint)
        forward(endpoint, endpoint.outside)
        endpoint.apply(CORP, INET, unbound="corp", **(MARK if marked else {}))
        found = [upload(endpoint.lab.outside, address) for address in endpoint.outside.values()]
        assert found == ([BULK, BULK] if marked else [0, 0])

    @pytest.mark.parametrize("marked", [True, False])
    def test_forwarded_traffic_that_goes_along_spares_what_came_by_the_uplink(
        self, endpoint: Endpoint, marked: bool
    ) -> None:
        forward(endpoint, endpoint.outside)
        options = {"unbound": "corp", "unbound_forwarded": ["br0"], **(MARK if marked else {})}
        endpoint.apply(CORP, INET, **options)
        questions = asked(endpoint, endpoint.outside, endpoint.lab.outside, endpoint.container.name)
        assert len(endpoint.wrong(questions)) == (0 if marked else len(questions))


class TestOtherMarks:
    def test_bits_of_others_stay_and_theirs_disturb_nothing(self, endpoint: Endpoint) -> None:
        forward(endpoint, endpoint.inside)
        endpoint.host.run(["nft", "-f", "-"], stdin=OTHERS)
        endpoint.ip(*(f"{family} rule add pref 5210 fwmark 0x80000/0xff0000 lookup main" for family in ("-4", "-6")))
        found = endpoint.apply(FOLLOWED, INET, **MARK)
        assert not [text for text in found.warnings if "marks" in text]
        questions = asked(endpoint, endpoint.inside, endpoint.lab.outside, endpoint.container.name)
        assert endpoint.wrong(questions) == []
        endpoint.host.run(["conntrack", "-L"], check=False)
        shown = endpoint.host.shell(
            "nft add table inet fvt_see; nft 'add chain inet fvt_see f { type filter hook forward priority 0; }';"
            "nft 'add rule inet fvt_see f meta mark 0x1080000 counter'"
        )
        assert shown == ""
        assert endpoint.wrong(questions) == []
        counted = endpoint.host.shell("nft list chain inet fvt_see f")
        assert "packets 0" not in counted

    @pytest.mark.parametrize("mark", [MARK["mark"], "0x100000/0x700000"])
    def test_those_of_wg_quick_are_restored_before_ours(self, endpoint: Endpoint, mark: str) -> None:
        forward(endpoint, endpoint.inside)
        for family in ("ip", "ip6"):
            endpoint.host.run(["nft", "-f", "-"], stdin=WG_QUICK.format(family=family))
        endpoint.apply(FOLLOWED, INET, mark=mark)
        questions = asked(endpoint, endpoint.inside, endpoint.lab.outside, endpoint.container.name)
        for _time in range(2):  # the second time the connections of UDP are known
            assert endpoint.wrong(questions) == []
        assert endpoint.wrong(endpoint.both(endpoint.identities)) == []

    def test_a_foreign_rule_with_our_bits_is_named(self, endpoint: Endpoint) -> None:
        endpoint.ip(
            "rule add pref 5210 fwmark 0x1000000/0xff000000 lookup main",
            "rule add pref 30000 not fwmark 0xca6c lookup main",
        )
        found = endpoint.apply(FOLLOWED, INET, **MARK)
        assert [text for text in found.warnings if "bits of our marks" in text] == [
            "foreign rule with bits of our marks: 5210:\tfrom all fwmark 0x1000000/0xff000000 lookup 254"
        ]

    def test_a_mask_without_room_is_refused(self, endpoint: Endpoint) -> None:
        with pytest.raises(InvalidInput, match="mark: '0x1/0x1' has room for fewer than the 2 values"):
            endpoint.apply(FOLLOWED, {**INET, "follow_connections": True}, mark="0x1/0x1")
