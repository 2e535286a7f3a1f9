# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What is known of the VPN client behind a tunnel identity."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import InvalidInput

# What role vpn_wireguard mends: the client would put rules of its own ahead of everybody's at its next start.
TABLE_OFF = "table_off"
NETWORKMANAGER = "networkmanager"
# What role vpn_ipsec mends: charon does not know of our tables, and its rule stands ahead of ours.
CHARON = "charon"
# What roles vpn_openconnect and vpn_ppp install: files that the client runs, and waits for.
HOOK = "hook"


@dataclasses.dataclass(frozen=True)
class Client:
    """The VPN client behind a tunnel identity, as found on the host.

    C(needs) are words for what role vpn_TYPE would do for it: nothing when that is done already. C(hooks) are the files
    of such a role, C(remarks) what the user should know of this client.
    """

    identity: str
    type: str
    manager: str | None
    connection: str | None
    interface: str | None
    needs: tuple[str, ...] = ()
    settings: t.Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the client, that go with the needs
    hooks: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def takes_over(self) -> bool:
        """Whether it would defeat the recipe at its next start."""
        return TABLE_OFF in self.needs

    def as_result(self) -> dict[str, t.Any]:
        """As module endpoint returns it."""
        shown = {name: value for name, value in dataclasses.asdict(self).items() if name != "remarks"}
        return {**shown, "needs": list(self.needs), "hooks": list(self.hooks), "settings": dict(self.settings)}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The tunnel of an identity as declared, for whoever looks for its client."""

    identity: str
    connection: str | None  # as stated, or the one device that is named
    manager: str | None
    holder: t.Callable[[str], str | None]  # the device that has an address now
    interface: str | None = None  # the one device that is named
    destinations: tuple[str, ...] = ()
    field: str = "identities"

    def one_of(self, *managers: str) -> str | None:
        """The stated manager. Raises InvalidInput for one that is not among these."""
        if self.manager is not None and self.manager not in managers:
            raise InvalidInput(
                "starts no tunnel of this type",
                field=f"{self.field}.tunnel.manager",
                value=self.manager,
                accepted=", ".join(managers),
            )
        return self.manager
