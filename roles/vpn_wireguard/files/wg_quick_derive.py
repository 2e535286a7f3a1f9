# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Derive a configuration for wg-quick that does not jump the queue of policy rules.

With a peer for 0.0.0.0/0 or ::/0 and Table unset or auto, wg-quick adds its rules without a priority, so that they land
ahead of all others, and a firewall chain that cuts containers off the inside address. The derived file has Table = off,
and hooks that do the rest of what wg-quick would do: the same routes, and the same rules at the priorities that they
get on a host without other rules. Every other line is the user's own.

  wg_quick_derive.py NAME          write /run/fleetvpn/wg-quick/NAME.conf, 0600, from /etc/wireguard/NAME.conf
  wg_quick_derive.py --check NAME  say as JSON whether the file needs it; writes nothing

The file holds private keys: no line of it is ever printed, in an error neither.
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import json
import os
import re
import sys
import tempfile
import typing as t
from pathlib import Path

SOURCE = Path("/etc/wireguard")
TARGET = Path("/run/fleetvpn/wg-quick")
NAME = re.compile(r"[A-Za-z0-9_=+.-]{1,15}\Z")
FIRST_MARK = 51820
MAIN_PRIORITY = 32764
TABLE_PRIORITY = 32765
FIREWALL = (
    "add table {pf} wg-quick-{name}",
    "add chain {pf} wg-quick-{name} premangle {{ type filter hook prerouting priority -150; }}",
    "add chain {pf} wg-quick-{name} postmangle {{ type filter hook postrouting priority -150; }}",
    "add rule {pf} wg-quick-{name} postmangle meta l4proto udp mark {mark} ct mark set mark",
    "add rule {pf} wg-quick-{name} premangle meta l4proto udp meta mark set ct mark",
)


class Refusal(Exception):
    """The file cannot be read or understood; the text tells where, never what stands there."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the file with what wg-quick and wg make of it."""

    number: int
    raw: bytes
    section: str  # lower case, without brackets; wg's reading
    quick: bool  # whether wg-quick itself takes it for a line of [Interface]
    key: str  # lower case; empty for headers, comments and blank lines
    value: str


@dataclasses.dataclass(frozen=True)
class Config:
    """What matters of a configuration."""

    lines: tuple[Line, ...]

    @property
    def table(self) -> str:
        """The last Table; auto if there is none."""
        return next((line.value for line in reversed(self.lines) if line.quick and line.key == "table"), "auto")

    @property
    def mark(self) -> int | None:
        """FwMark as wg reads it; None if there is none or it is off."""
        lines = [line for line in self.lines if line.section == "interface" and line.key == "fwmark"]
        return _mark(lines[-1]) if lines else None

    @property
    def saves(self) -> bool:
        """Whether wg-quick writes its state back when the tunnel goes down."""
        return any(line.quick and line.key == "saveconfig" and line.value.lower() == "true" for line in self.lines)

    @property
    def prefixes(self) -> list[str]:
        """AllowedIPs of all peers, the longer first, as wg-quick adds their routes."""
        found = {prefix for line in self.lines if _is_allowed_ips(line) for prefix in _prefixes(line)}
        return [str(p) for p in sorted(found, key=lambda p: (-p.prefixlen, p.version, int(p.network_address)))]

    @property
    def needed(self) -> bool:
        """Whether wg-quick would add rules of its own."""
        return self.table in ("", "auto") and any(prefix.endswith("/0") for prefix in self.prefixes)


def parse(content: bytes) -> Config:
    """Read a configuration with the rules of wg-quick's parse_options and of wg's own parser."""
    lines = []
    section, quick = "", False
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if b"\0" in raw:
            raise Refusal(f"line {number} holds a zero byte")
        stripped = raw.split(b"#", 1)[0].decode("utf-8", "surrogateescape")
        key, _equals, value = (part.strip(" \t\r\v\f") for part in stripped.partition("="))
        if key.startswith("["):
            quick = key.lower() == "[interface]"
        dense = re.sub(r"\s", "", stripped).lower()
        if dense.startswith("[") and dense.endswith("]"):
            section = dense[1:-1]
        header = key.startswith("[") or not key
        lines.append(Line(number, raw, section, quick, "" if header else _dense(key), value))
    return Config(tuple(lines))


def derive(config: Config, name: str, mark: int) -> bytes:
    """The content that wg-quick is started with: the user's own where wg-quick adds no rules."""
    if not config.needed:
        return b"\n".join(line.raw for line in config.lines)
    derived: list[bytes] = []
    pending = _additions(config, name, mark)
    for line in config.lines:
        if _is_replaced(line, config):
            continue
        derived.append(line.raw)
        if pending and line.quick and not line.key:
            derived += [text.encode() for text in pending]
            pending = []
    return b"\n".join(derived)


def _is_replaced(line: Line, config: Config) -> bool:
    """Table is set anew, and a FwMark that says off."""
    dead_mark = line.section == "interface" and line.key == "fwmark" and config.mark is None
    return dead_mark or (line.quick and line.key == "table")


def _additions(config: Config, name: str, mark: int) -> list[str]:
    """The lines that follow the first [Interface]: ahead of the user's own hooks, as wg-quick's own routes would be."""
    up = [_route(prefix, name, mark) for prefix in config.prefixes]
    down = []
    for family in sorted({_family(prefix) for prefix in config.prefixes if prefix.endswith("/0")}):
        # In wg-quick's own words, so that wg-quick removes them too if the tunnel goes down without this file.
        for there, rule in (
            ("table main", f"table main suppress_prefixlength 0 priority {MAIN_PRIORITY}"),
            (f"fwmark {mark:#x}", f"not fwmark {mark:#x} table {mark} priority {TABLE_PRIORITY}"),
        ):
            found = f"$(ip -{family} rule show {there} priority {rule.split()[-1]})"
            up.append(f"[[ -n {found} ]] || ip -{family} rule add {rule}")
            down.append(f"[[ -z {found} ]] || ip -{family} rule delete {rule}")
        up += _marking(family, name, mark)
    marks = [] if config.mark is not None else [f"FwMark = {mark:#x}"]
    return ["Table = off", *marks, *(f"PostUp = {line}" for line in up), *(f"PostDown = {line}" for line in down)]


def _route(prefix: str, name: str, mark: int) -> str:
    family = _family(prefix)
    if prefix.endswith("/0"):
        return f"ip -{family} route replace {prefix} dev {name} table {mark}"
    there = f"ip -{family} route show dev {name} match {prefix}"
    return f"[[ -n $({there}) ]] || ip -{family} route add {prefix} dev {name}"


def _marking(family: int, name: str, mark: int) -> list[str]:
    """Carry the mark over to the answers of the tunnel's own packets: a strict reverse path filter wants it.

    The names are wg-quick's own, so that wg-quick takes the objects down.
    """
    filter_name, table = ("ip", "iptables") if family == 4 else ("ip6", "ip6tables")
    script = "; ".join(line.format(pf=filter_name, name=name, mark=mark) for line in FIREWALL)
    comment = f'-m comment --comment "wg-quick(8) rule for {name}"'
    save = f"{table} -t mangle -I POSTROUTING -m mark --mark {mark} -p udp -j CONNMARK --save-mark {comment}"
    restore = f"{table} -t mangle -I PREROUTING -p udp -j CONNMARK --restore-mark {comment}"
    firewall = f"if type -p nft >/dev/null; then nft '{script}'; else {save} && {restore}; fi"
    return [firewall, *(["sysctl -q net.ipv4.conf.all.src_valid_mark=1"] if family == 4 else [])]


def choose_mark(config: Config, others: t.Iterable[Config]) -> int:
    """The user's own FwMark; else, as wg-quick does, 51820 or the next that no other tunnel has."""
    if config.mark is not None:
        return config.mark
    taken = {other.mark for other in others}
    return next(mark for mark in range(FIRST_MARK, FIRST_MARK + len(taken) + 1) if mark not in taken)


def report(config: Config) -> dict[str, t.Any]:
    """What the role asks; no part of it is secret."""
    families = sorted({_family(prefix) for prefix in config.prefixes if prefix.endswith("/0")})
    return {
        "needed": config.needed,
        "fwmark": config.mark if config.mark is not None else FIRST_MARK,
        "families": [f"ipv{family}" for family in families],
        "save_config": config.saves,
    }


def read(path: Path) -> Config:
    """The configuration in a file."""
    config = parse(path.read_bytes())
    if not any(line.quick for line in config.lines):
        raise Refusal("has no section [Interface]")
    return config


def write(directory: Path, name: str, content: bytes) -> None:
    """Put the file there in one step, readable by its owner alone from the first byte on."""
    _make_private(directory)
    handle, fresh = tempfile.mkstemp(dir=directory, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(fresh).replace(directory / f"{name}.conf")
    except BaseException:
        Path(fresh).unlink()
        raise


def _make_private(directory: Path) -> None:
    """A directory that others can write to, or that is a link, might lead the keys elsewhere."""
    for each in (directory.parent, directory):
        each.mkdir(mode=0o700, exist_ok=True)
        found = each.lstat()
        # A link has mode 0777.
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Refusal(f"{each} is not a directory that its owner alone can write to")


def _others(directory: Path, name: str) -> list[Config]:
    if not directory.is_dir():
        return []
    return [read(path) for path in sorted(directory.glob("*.conf")) if path.name != f"{name}.conf"]


def _dense(key: str) -> str:
    return re.sub(r"\s", "", key).lower()


def _mark(line: Line) -> int | None:
    text = _dense(line.value)
    if text == "off":
        return None
    if not re.match(r"(0x[0-9a-f]{1,8}|[0-9]{1,10})\Z", text):
        raise Refusal(f"line {line.number}: FwMark is no number")
    return int(text, 16 if text.startswith("0x") else 10) or None


def _is_allowed_ips(line: Line) -> bool:
    return line.section == "peer" and line.key == "allowedips"


def _prefixes(line: Line) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    entries = [re.sub(r"\s", "", entry).lstrip("+-") for entry in line.value.split(",")]
    try:
        return [ipaddress.ip_network(entry, strict=False) for entry in entries if entry]
    except ValueError:
        raise Refusal(f"line {line.number}: AllowedIPs is no list of prefixes") from None


def _family(prefix: str) -> int:
    return 6 if ":" in prefix else 4


def run(name: str, check: bool, source: Path, target: Path) -> None:
    """Derive, or report. Raises Refusal, and OSError for what cannot be read or written."""
    if not NAME.match(name):
        raise Refusal("is no interface name")
    path = source / f"{name}.conf"
    if check:
        # No file is no reason to fail here: somebody else than wg-quick may start the tunnel.
        config = read(path) if path.exists() else Config(())
        sys.stdout.write(json.dumps(report(config)) + "\n")
    else:
        config = read(path)
        write(target, name, derive(config, name, choose_mark(config, _others(target, name))))


def main(arguments: t.Sequence[str], source: Path = SOURCE, target: Path = TARGET) -> int:
    """Do what the command line asks; 0, or 1 after one line on standard error."""
    parser = argparse.ArgumentParser(prog="wg_quick_derive", description="A configuration for wg-quick without rules.")
    parser.add_argument("--check", action="store_true", help="only say as JSON whether the file needs it")
    parser.add_argument("name", help="the interface, and the name of the file below /etc/wireguard")
    options = parser.parse_args(arguments)
    try:
        run(options.name, options.check, source, target)
    except (Refusal, OSError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        sys.stderr.write(f"wg_quick_derive: {source / (options.name + '.conf')}: {reason}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
