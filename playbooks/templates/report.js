// Copyright (c) 2026, fleetvpn.routing contributors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
"use strict";
{
  const hosts = Array.from(document.querySelectorAll(".host"), (host) => [host, host.textContent.toLowerCase()]);
  const filter = document.getElementById("filter");
  const words = document.getElementById("words");

  // The state is filtered by the style sheet alone; the script adds the search, and counts.
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    const state = filter.elements.show.value;
    let shown = 0;
    for (const [host, text] of hosts) {
      host.hidden = !wanted.every((word) => text.includes(word));
      shown += !host.hidden && (state === "all" || host.classList.contains(state));
    }
    document.getElementById("shown").textContent = `${shown} shown`;
  };

  document.getElementById("search").hidden = false;
  filter.addEventListener("input", show);
  filter.addEventListener("submit", (event) => event.preventDefault());
  show();
}
