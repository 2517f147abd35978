"use strict";
const data = JSON.parse(document.getElementById("evidence").textContent);
const make = (name, text, parent) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
};

// Sorting: by the full value where a cell has one, by its text elsewhere; what is missing goes last.
const table = document.querySelector("table.sortable");
const body = table.tBodies[0];
for (const button of table.querySelectorAll(".sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const up = head.getAttribute("aria-sort") !== "ascending";
    const key = (row) => {
      const cell = row.cells[head.cellIndex];
      if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
      return head.classList.contains("num") ? null : cell.textContent.trim();
    };
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const way = typeof x === "number" && typeof y === "number" ? x - y
        : String(x).localeCompare(String(y), "en", { numeric: true });
      return up ? way : -way;
    };
    body.append(...[...body.rows].sort(order));
    for (const other of head.parentNode.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}

// Filtering: rows that hold the words, columns by group.
const filter = document.getElementById("filter");
const shown = document.getElementById("shown");
const narrow = () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    const fits = words.every((word) => text.includes(word));
    row.classList.toggle("hide", !fits);
    count += fits;
  }
  shown.textContent = words.length ? `${count} of ${body.rows.length} rows` : "";
};
filter.addEventListener("input", narrow);
for (const box of document.querySelectorAll("[data-group]")) {
  box.addEventListener("change", () => {
    for (const cell of table.querySelectorAll(`.g-${box.dataset.group}`)) {
      cell.classList.toggle("hide", !box.checked);
    }
  });
}

// Evidence: what a number is, its runs, and the card of each run from the section Runs.
const dialog = document.getElementById("evidence-dialog");
const content = document.getElementById("evidence-body");
const facts = (pairs) => {
  const list = make("dl");
  list.className = "facts";
  for (const [name, text] of pairs) {
    make("dt", name, list);
    make("dd", text, list);
  }
  return list;
};
const open = (key) => {
  const found = data.cells[key];
  document.getElementById("h-evidence").textContent = `${found.row}: ${found.title}`;
  content.replaceChildren(facts(found.facts));
  for (const note of found.notes) make("p", note, content).className = "note";
  if (found.runs) {
    const rows = make("table", undefined, content);
    const head = make("tr", undefined, make("thead", undefined, rows));
    for (const name of ["run", "seed", "value"]) make("th", name, head);
    const values = make("tbody", undefined, rows);
    for (const run of found.runs) {
      const line = make("tr", undefined, values);
      for (const text of run) make("td", text, line);
    }
    for (const [id] of found.runs) {
      const card = document.getElementById(`run-${id}`);
      const more = make("details", undefined, content);
      make("summary", `Run ${id}: configuration, data, code, environment`, more);
      const copy = card.cloneNode(true);
      copy.removeAttribute("id");
      more.append(copy);
    }
  }
  dialog.showModal();
  dialog.scrollTop = 0;
};
for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => open(button.dataset.open));
}
// A row's name leads to its runs, which are folded away.
const reveal = (hash) => {
  const target = hash.length > 1 && document.getElementById(hash.slice(1));
  const row = target && target.closest("details");
  if (!row) return;
  row.open = true;
  target.scrollIntoView();
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#r']");
  if (link) setTimeout(() => reveal(link.getAttribute("href")));
});
reveal(location.hash);
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

// Curves: the values of the nearest snapshot, and a row brought out of the others.
const plots = document.querySelector(".plots");
if (plots) {
  const tip = plots.querySelector(".tip");
  const legend = [...document.querySelectorAll(".legend button")];
  const names = legend.map((button) => button.querySelector("span").textContent);
  const brief = (value) => (Math.abs(value) >= 999.5 ? value.toFixed(0) : value.toPrecision(3));
  const show = (svg, index) => {
    const places = JSON.parse(svg.dataset.x);
    const [x, images] = places[index];
    const box = svg.viewBox.baseVal;
    svg.querySelector(".cursor").setAttribute("d", `M${x} 14V${box.height - 46}`);
    const rows = data.curves
      .map((points, i) => [names[i], points.find((point) => Math.abs(point[0] - images) < 0.5)])
      .filter(([, point]) => point)
      .sort(([, a], [, b]) => a[1] - b[1]);
    tip.replaceChildren(make("b", `${images / 1000} thousand images`));
    const list = make("table", undefined, tip);
    for (const [name, [, mean, low, high]] of rows) {
      const line = make("tr", undefined, list);
      make("td", name, line);
      make("td", brief(mean), line);
      make("td", low < high ? `${brief(low)} – ${brief(high)}` : "", line);
    }
    tip.hidden = false;
    const at = (x / box.width) * svg.clientWidth - svg.parentElement.scrollLeft;
    const right = at + 14 + tip.offsetWidth <= plots.clientWidth;
    tip.style.left = `${right ? at + 14 : Math.max(0, at - 14 - tip.offsetWidth)}px`;
    tip.style.top = "12px";
    svg.dataset.at = index;
  };
  const hide = (svg) => {
    tip.hidden = true;
    svg.querySelector(".cursor").setAttribute("d", "");
  };
  for (const svg of plots.querySelectorAll(".images > svg")) {
    const places = JSON.parse(svg.dataset.x).map(([x]) => x);
    svg.addEventListener("pointermove", (event) => {
      const at = ((event.clientX - svg.getBoundingClientRect().left) / svg.clientWidth) * svg.viewBox.baseVal.width;
      const gaps = places.map((x) => Math.abs(x - at));
      show(svg, gaps.indexOf(Math.min(...gaps)));
    });
    svg.addEventListener("pointerleave", () => hide(svg));
    svg.addEventListener("blur", () => hide(svg));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const before = tip.hidden ? (step > 0 ? -1 : places.length) : Number(svg.dataset.at);
      show(svg, Math.min(places.length - 1, Math.max(0, before + step)));
    });
  }
  const bring = (extra) => {
    const on = new Set(legend.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.series));
    if (extra !== undefined) on.add(extra);
    plots.classList.toggle("picked", on.size > 0);
    for (const series of plots.querySelectorAll(".series")) {
      series.classList.toggle("on", on.has(series.dataset.series));
    }
  };
  for (const button of legend) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      bring();
    });
    button.addEventListener("pointerenter", () => bring(button.dataset.series));
    button.addEventListener("pointerleave", () => bring());
  }
}
