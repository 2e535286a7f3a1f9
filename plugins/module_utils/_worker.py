# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What stands between a module's work and AnsibleModule: a context in, a result out."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

if t.TYPE_CHECKING:
    from ._kernel import Kernel


@dataclasses.dataclass(frozen=True)
class Context:
    """What a module's work needs: options, a way to the kernel (opened only where it is asked), and the mode.

    C(root) is where the files of the host begin; tests use another one.
    """

    params: t.Mapping[str, t.Any]
    open_kernel: t.Callable[[], contextlib.AbstractContextManager[Kernel]]
    check_mode: bool = False
    diff: bool = False
    root: str = "/"

    @property
    def netns(self) -> str | None:
        """The network namespace that was asked for."""
        return self.params.get("netns")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a module's work found and did (or, in check mode, would do)."""

    changed: bool = False
    plan: t.Sequence[t.Mapping[str, t.Any]] | None = None
    before: str = ""
    after: str = ""
    header: str | None = None  # where the texts are from
    warnings: t.Sequence[str] = ()
    values: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)

    def as_result(self, *, diff: bool) -> dict[str, t.Any]:
        """The keys of a module's result; a module that changes nothing ever has no plan and no diff."""
        found: dict[str, t.Any] = {"changed": self.changed, **self.values}
        if self.plan is not None:
            found["plan"] = [dict(step) for step in self.plan]
        if diff and self.plan is not None:
            found["diff"] = {"before": self.before, "after": self.after}
            if self.header is not None:
                found["diff"].update(before_header=self.header, after_header=self.header)
        return found
