# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import typing as t

import pytest

from extensions.molecule.shared.network import CLIENTS, Client, Network, not_shown

_SHARED = pathlib.Path(__file__).parents[1]
# A file with a tunnel's key or password, and the lines of it that are secret.
_SECRETS = {
    "openconnect": "cat /etc/openconnect/corp.password",
    "wireguard": "sed -n 's/^PrivateKey = //p' /etc/wireguard/wg0.conf",
    "openvpn": "sed '/-----/d' /etc/openvpn/client/corp.key",
    "nebula": "sed '/-----/d' /etc/nebula/host.key",
    "overlay": "sed '/-----/d' /etc/tinc/corp/rsa_key.priv",
    "ppp": "cut -d ' ' -f 3 /etc/ppp/chap-secrets",
    "ipsec": "sed -n 's/^ *secret = //p' /etc/swanctl/conf.d/corp.conf",
}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What is left out is not left to be found out."""
    for line in not_shown():
        terminalreporter.write_line(f"NOT SHOWN HERE: {line}", yellow=True, bold=True)


@pytest.fixture(scope="session")
def kind() -> str:
    return os.environ["MOLECULE_SCENARIO_NAME"]


@pytest.fixture(scope="session")
def network(kind: str) -> t.Iterator[Network]:
    network = Network(kind)
    try:
        network.wait_for_tunnels()
        yield network
    finally:
        network.close()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, network: Network) -> Client:
    return next(client for client in network.clients if client.name == request.param)


@pytest.fixture(scope="session")
def secrets(kind: str, network: Network) -> list[str]:
    found = [network.host(client).shell(_SECRETS[kind]).split() for client in network.clients]
    assert all(found)
    return [line for lines in found for line in lines]


@pytest.fixture(scope="session")
def notes() -> dict[str, t.Any]:
    """What was found before the collection came; empty at that time."""
    path = pathlib.Path(os.environ["FLEETVPN_NOTES"])
    found: dict[str, t.Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


@pytest.fixture(scope="session")
def write_notes() -> t.Callable[[dict[str, t.Any]], None]:
    path = pathlib.Path(os.environ["FLEETVPN_NOTES"])
    return lambda notes: path.write_text(json.dumps(notes, indent=1))


@pytest.fixture(scope="session")
def playbook() -> t.Callable[..., str]:
    """Run the playbook once more; its whole output."""

    def run(*options: str) -> str:
        command = ["ansible-playbook", "-i", os.environ["FLEETVPN_INVENTORY"], str(_SHARED / "converge.yml"), *options]
        # Colours would hide what is looked for.
        plain = {name: value for name, value in os.environ.items() if name != "ANSIBLE_FORCE_COLOR"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
