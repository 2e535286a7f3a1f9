#!/usr/bin/python
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what a VPN endpoint's routing is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_info
short_description: Read what the routing of a VPN endpoint is
version_added: 1.0.0
author:
  - fleetvpn.routing contributors (@fleetvpn)
description:
  - Reads what M(fleetvpn.routing.endpoint) has put into the kernel, and asks the kernel for the path of every address.
  - Lists what others have put beside it, which of that is in the way, and what to do about it.
  - It changes nothing. It needs root, who alone may read the records of the sets.
extends_documentation_fragment:
  - fleetvpn.routing._attributes
  - fleetvpn.routing._attributes.info
  - fleetvpn.routing._requirements
  - fleetvpn.routing._netns
options:
  set:
    description: The set to look at. All sets of the host unless given.
    type: str
seealso:
  - module: fleetvpn.routing.endpoint
  - module: fleetvpn.routing.path_check
"""

EXAMPLES = r"""
- name: Ask for the routing of the host
  fleetvpn.routing.endpoint_info:
  register: routing

- name: Show what stands against them
  ansible.builtin.debug:
    msg: "{{ routing.findings | rejectattr('severity', 'equalto', 'info') }}"

- name: Show what a host without a declaration could declare
  ansible.builtin.debug:
    var: routing.proposal

- name: Show the identities that are not proven
  ansible.builtin.debug:
    msg: "{{ routing.identities | rejectattr('verdict', 'equalto', 'proven') | map(attribute='key') }}"
"""

RETURN = r"""
suspended:
  description:
    - How the host is suspended, nothing if it is not. Then nothing of any set is in the kernel, and module
      M(fleetvpn.routing.endpoint) refuses the host, until C(fleetvpn-endpoint resume) is run there.
  returned: success
  type: dict
  contains:
    since:
      description: Since when, nothing if the file was made by hand.
      type: str
    by:
      description: Who did it, as far as that is known.
      type: str
    until:
      description: When it ends by itself, nothing if it does not.
      type: str
    text:
      description: The same in one line.
      type: str
sets:
  description: Every set with its state.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the set.
      type: str
    state:
      description:
        - V(drifted) if the kernel differs from the set, else the worst verdict of its identities, V(proven), V(pending)
          or V(wrong). Also V(wrong) if it could not be read, and RV(sets[].error) says why.
      type: str
    error:
      description: Why the set could not be compared with the kernel, in one line.
      type: str
    plan:
      description: What would bring the kernel back to the set. See RV(fleetvpn.routing.endpoint#module:plan).
      type: list
      elements: dict
    identities:
      description: The identities of the set. See RV(fleetvpn.routing.endpoint#module:identities).
      type: list
      elements: dict
    numbers:
      description: The numbers in use by the set.
      type: dict
    meta:
      description: Who changed it last, and when.
      type: dict
    fallback:
      description: Whether the record was unreadable, so that an older generation was used.
      type: bool
identities:
  description: The identities of all sets, each with C(set). See RV(fleetvpn.routing.endpoint#module:identities).
  returned: success
  type: list
  elements: dict
paths:
  description: The kernel's answers. See RV(fleetvpn.routing.endpoint#module:paths).
  returned: success
  type: list
  elements: dict
owned:
  description: Rules, and routes in the tables of the sets, that carry the protocol number of a set.
  returned: success
  type: list
  elements: dict
  contains: &object
    family:
      description: V(ipv4) or V(ipv6).
      type: str
    protocol:
      description: The routing protocol number, which says who made it.
      type: int
    text:
      description: The object as iproute2 writes it.
      type: str
foreign:
  description: Rules, and routes in the tables of the sets, that others made. Those that the kernel made itself are left
    out.
  returned: success
  type: list
  elements: dict
  contains: *object
findings:
  description: What on the host stands against the sets, or will, the worst first.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description:
        - V(local), the kernel's rule for table C(local) stands behind the block. V(twin), V(ahead) and V(between), a
          foreign rule that equals one of ours, or is asked before or between them. V(mark), a foreign rule that reads
          bits of a mark of ours, so that one program's marks would be taken for the other's.
        - V(error_route), a route of C(main) that ends the lookup of an uplink's address. V(pair), a route of C(main)
          whose source and device do not belong together. V(address), an inside address on two devices.
        - V(silent), an identity without an address or pool of a family. V(table_name), a line in the files of iproute2
          that gives a table a name which is not its own.
        - V(daemon), a program that manages routes or rules, and whether it leaves ours alone. V(client), a VPN client
          that supervises routes or rules by itself. With O(netns) programs are not looked for.
      type: str
    severity:
      description: V(error) if it breaks an identity, V(warning) if it does so in some cases, V(info) if it may stay.
      type: str
    object:
      description: The rule, route, address, line or program.
      type: str
    text:
      description: What is the matter with it.
      type: str
    advice:
      description: What to do.
      type: str
proposal:
  description:
    - For a host that has no set, what it could declare, from its devices, addresses and defaults, the VPN clients that
      run, and hand-made rules. Nothing for a host that has one.
    - It is a beginning, to be read by somebody who knows the host. Playbook C(fleetvpn.routing.discover) writes it as a
      file of host variables.
  returned: success
  type: dict
  contains:
    declaration:
      description:
        - Options of M(fleetvpn.routing.endpoint). There is always C(identities); C(numbers) or C(adopt) are there where
          hand-made rules stand ahead of where a set begins.
      type: dict
      sample:
        identities:
          - {name: outside, interface: auto}
          - {name: inside, tunnel: {type: wireguard, connection: wg0}}
    remarks:
      description: What could not be decided, and what becomes of each hand-made rule, a line each.
      type: list
      elements: str
conflicts:
  description: Those of RV(foreign) that are in the way.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description:
        - V(ahead) for a rule that is asked before those of the set, V(twin) for one that equals one of them,
          V(occupied) for a route in the place of one of the set.
      type: str
    family:
      description: V(ipv4) or V(ipv6).
      type: str
    protocol:
      description: The routing protocol number.
      type: int
    text:
      description: The object as iproute2 writes it.
      type: str
refused:
  description: The last refusal of each set, as long as nothing of that set has been accepted since. The host then has
    what was declared before.
  returned: success
  type: list
  elements: dict
  contains:
    set:
      description: The set.
      type: str
    reason:
      description: Why module M(fleetvpn.routing.endpoint) failed, in one line; or that the change was not confirmed in
        time.
      type: str
    last:
      description: When that was, in ISO 8601.
      type: str
    times:
      description: How often it was refused for this reason.
      type: int
repairs:
  description: What the watch did to the sets since the boot, and what somebody did on purpose or was refused, the last
    first.
  returned: success
  type: list
  elements: dict
  contains:
    set:
      description: The set whose object it was; V(all sets) for what concerns the host.
      type: str
    done:
      description: V(put back) for what was gone or changed, V(removed) for what carried the number of a set and was
        none of its objects, both by the watch; V(suspended) and V(resumed) by somebody on the host; V(ended) for a set
        that has expired; V(refused) for a change that was not made, V(accepted) for the next one that was.
      type: str
    object:
      description: The object, with its kind and family. Or who did it, when it ended, why it was refused.
      type: str
    first:
      description: When it was done first, in ISO 8601.
      type: str
    last:
      description: When it was done last.
      type: str
    times:
      description: How often it was done.
      type: int
"""

from ansible_collections.fleetvpn.routing.plugins.module_utils._ansible import run
from ansible_collections.fleetvpn.routing.plugins.module_utils._endpoint_spec import ENDPOINT_INFO
from ansible_collections.fleetvpn.routing.plugins.module_utils._info import tell


def main() -> None:
    """Run the module."""
    run(ENDPOINT_INFO, tell)


if __name__ == "__main__":
    main()
