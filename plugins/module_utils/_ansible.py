# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Where all meets AnsibleModule: options in, result or clean failure out. Modules import it ahead of the rest."""

from __future__ import annotations

import functools
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ._bytecode import FINDER  # ahead of the rest, which is found by it
from ._errors import RoutingError
from ._kernel import open_kernel
from ._worker import Context, Result

if t.TYPE_CHECKING:
    from ._argspec import Spec


def run(argument_spec: Spec, worker: t.Callable[[Context], Result], **checks: t.Any) -> None:
    """A whole module. C(checks) are further arguments of AnsibleModule, as C(mutually_exclusive)."""
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True, **checks)
    context = Context(
        params=module.params,
        open_kernel=functools.partial(open_kernel, module.params.get("netns")),
        check_mode=module.check_mode,
        diff=module._diff,  # noqa: SLF001 -- there is no public name for it
    )
    try:
        result = worker(context)
    except RoutingError as exc:
        module.fail_json(**exc.as_result())
        return
    finally:
        if FINDER is not None:
            FINDER.close()
    for warning in result.warnings:
        module.warn(warning)
    module.exit_json(**result.as_result(diff=context.diff))
