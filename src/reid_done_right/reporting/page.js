"use strict";

const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Light and dark: the reader's system decides until the button is pressed.
find("#theme").onclick = () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
};

// Tables: a heading sorts the rows below it, within each part of the table.
function valueOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = parseFloat(text.replace("−", "-").replace("<", ""));
  return Number.isNaN(number) ? text : number;
}
function compare(a, b, direction) {
  const [numberA, numberB] = [typeof a === "number", typeof b === "number"];
  if (numberA !== numberB) return numberA ? -1 : 1; // what has no number stands last, either way
  return direction * (numberA ? a - b : a.localeCompare(b));
}
function sort(table, heading, column) {
  const descending = heading.getAttribute("aria-sort") === "ascending";
  all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  for (const part of table.tBodies) {
    const rows = [...part.rows].filter((row) => !row.classList.contains("heading"));
    rows.sort((a, b) => compare(valueOf(a, column), valueOf(b, column), descending ? -1 : 1));
    part.append(...rows);
  }
}
for (const table of all("table.sortable")) {
  const names = all("thead th", table).map((heading) => heading.textContent);
  all("tbody tr:not(.heading)", table).forEach((row) => [...row.cells].forEach((cell, column) => { cell.dataset.label = names[column]; }));
  all("thead th", table).forEach((heading, column) => {
    const button = make("button", { type: "button" }, heading.textContent);
    button.onclick = () => sort(table, heading, column);
    heading.replaceChildren(button);
  });
}

// A number leads to its runs: mark them all.
function aim() {
  const wanted = decodeURIComponent(location.hash.slice(1)).split(" "); // two groups, for a difference
  all("tr.aimed").forEach((row) => row.classList.remove("aimed"));
  all("tr[data-group]")
    .filter((row) => wanted.includes(row.dataset.group))
    .forEach((row) => row.classList.add("aimed"));
  if (wanted.length > 1) find("tr.aimed")?.scrollIntoView({ block: "center" });
}
addEventListener("hashchange", aim);
aim();

// Runs: those whose name holds every word.
find("#run-filter").oninput = () => {
  const words = find("#run-filter").value.toLowerCase().split(/\s+/);
  const rows = all("#runs tbody tr");
  rows.forEach((row) => { row.hidden = !words.every((word) => row.cells[0].textContent.toLowerCase().includes(word)); });
  find("#run-count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
};

// Figures.
const dialog = find("#zoomed");
let nearness = 1; // 1: as large as fits
function zoom(factor) {
  const picture = find("img", dialog);
  const fits = Math.min(1, picture.parentElement.clientHeight / (picture.parentElement.clientWidth * picture.naturalHeight / picture.naturalWidth));
  nearness = Math.max(1, Math.min(8, nearness * factor));
  picture.style.width = `${100 * fits * nearness}%`;
}
find("#nearer").onclick = () => zoom(1.5);
find("#away").onclick = () => zoom(1 / 1.5);
dialog.onkeydown = (event) => ({ "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5) })[event.key]?.();
for (const button of all("button.zoom")) {
  button.onclick = () => {
    find("img", dialog).src = find("img", button).src;
    find("img", dialog).alt = find("img", button).alt;
    nearness = 1;
    dialog.showModal();
    find("img", dialog).decode().then(() => zoom(1)); // its size is known only then
  };
}
find("#close").onclick = () => dialog.close();
dialog.onclick = (event) => event.target === dialog && dialog.close();

// Where the reader is.
const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
const watch = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  },
  { rootMargin: "-20% 0px -75% 0px" },
);
all("main > section").forEach((section) => watch.observe(section));

// Pipeline: point at a rule.
for (const box of all("#graph .box")) {
  const near = all("#graph .arrow").filter((arrow) => [arrow.dataset.from, arrow.dataset.to].includes(box.dataset.rule));
  const mark = (on) => {
    find("#graph").classList.toggle("pointed", on);
    [box, ...near].forEach((each) => each.classList.toggle("near", on));
  };
  box.onmouseenter = box.onfocus = () => mark(true);
  box.onmouseleave = box.onblur = () => mark(false);
}

// Queries.
const data = JSON.parse(find("#data").textContent);
const [QUERY, TILE, AP, RELEVANT, FIRST, PLACES] = [0, 1, 2, 3, 4, 5];
const [FILE, PERSON, CAMERA] = [0, 1, 2];
const who = (person) => (person > 0 ? `person ${person}` : "nobody");
const percent = (fraction) => (100 * fraction).toFixed(1);

function tile(run, place, scale) {
  const [file, person, camera] = run.tiles[place];
  const [wide, tall, across] = run.tile.map((side, i) => (i < 2 ? side * scale : side));
  const name = `${who(person)}, camera ${camera}`;
  const element = make("span", { className: "tile", title: file, role: "img", ariaLabel: name });
  element.style.width = `${wide}px`;
  element.style.height = `${tall}px`;
  if (run.sheet) {
    element.classList.add(run.sheetClass);
    element.style.backgroundSize = `${wide * across}px auto`;
    element.style.backgroundPosition = `${-(place % across) * wide}px ${-Math.floor(place / across) * tall}px`;
  }
  return element;
}

function listed(run) {
  const person = find("#query-person").value.trim();
  const kind = find("#query-kind").value;
  const places = run.queries.map((_, place) => place);
  const shown = { all: () => true, failed: (query) => query[FIRST] !== 1, found: (query) => query[FIRST] === 1 }[kind];
  const order = { worst: 1, best: -1, number: 0 }[find("#query-order").value];
  return places
    .filter((place) => shown(run.queries[place]))
    .filter((place) => !person || String(run.tiles[run.queries[place][TILE]][PERSON]) === person)
    .sort((a, b) => order * (run.queries[a][AP] - run.queries[b][AP]) || run.queries[a][QUERY] - run.queries[b][QUERY]);
}

function option(run, place) {
  const query = run.queries[place];
  const [, person, camera] = run.tiles[query[TILE]];
  const words = make("span", {}, `person ${person}`, make("br"), make("small", {}, `camera ${camera}, query ${query[QUERY]}`));
  const element = make("div", { className: "query", id: `query-${place}`, role: "option" }, tile(run, query[TILE], 0.75), words, make("b", {}, percent(query[AP])));
  element.onclick = () => pick(run, place);
  return element;
}

function pick(run, place) {
  const list = find("#query-list");
  const query = run.queries[place];
  run.picked = place;
  all("[aria-selected]", list).forEach((other) => other.removeAttribute("aria-selected"));
  const chosen = find(`#query-${place}`, list);
  chosen?.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", `query-${place}`);
  if (chosen) list.scrollTop = Math.min(list.scrollTop, chosen.offsetTop - list.offsetTop);
  if (chosen) list.scrollTop = Math.max(list.scrollTop, chosen.offsetTop - list.offsetTop + chosen.offsetHeight - list.clientHeight);
  const [file, person, camera] = run.tiles[query[TILE]];
  const first = query[FIRST] ? `first right image at place ${query[FIRST]}` : "no right image in the gallery";
  history.replaceState(null, "", `#query=${run.name}/${query[QUERY]}`);
  const about = make("div", {}, make("strong", {}, `Query ${query[QUERY]}: person ${person}, camera ${camera}`), make("br"),
    `AP ${percent(query[AP])}, ${query[RELEVANT]} relevant ${query[RELEVANT] === 1 ? "image" : "images"}, ${first}`, make("br"), make("small", {}, file));
  find("#query-detail").replaceChildren(
    make("div", { className: "asked" }, tile(run, query[TILE], 2), about),
    make("ol", { className: "places", ariaLabel: "Ranked list" }, ...query[PLACES].map((each, i) => placed(run, each, i)), ...beyond(query)),
    ...compared(run, place), ...related(run, place));
}

function placed(run, [tilePlace, similarity, right], i) {
  const [, person, camera] = run.tiles[tilePlace];
  const sign = make("b", { role: "img", ariaLabel: right ? "right" : "wrong" }, right ? "✓" : "✗");
  const words = `${i + 1}. ${similarity.toFixed(2)}`;
  return make("li", {}, make("span", { className: `frame ${right ? "right" : "wrong"}` }, tile(run, tilePlace, 1.7), sign),
    make("div", {}, words, make("br"), who(person), make("br"), `camera ${camera}`));
}

// What should have been found stands behind the list where the list is too short for it.
function beyond(query) {
  if (query[FIRST] <= query[PLACES].length) return [];
  return [make("li", { className: "beyond" }, make("b", {}, "…"), make("div", {}, make("b", {}, "✓ "), `the first right one is at place ${query[FIRST]}`))];
}

function compared(run, place) {
  const bars = make("div", { className: "bars" });
  for (const [variant, values] of Object.entries(run.variants)) {
    const bar = make("div", { className: "bar" });
    bar.style.width = `${100 * values[place]}%`;
    bars.append(make("span", {}, variant), make("span", {}, bar), make("span", {}, percent(values[place])));
  }
  return [make("h3", {}, "AP of this query in every variant of the same draw"), bars];
}

function related(run, place) {
  const query = run.queries[place];
  const own = run.tiles[query[TILE]][PERSON];
  const wrong = query[PLACES].find((each) => !each[2]);
  const taken = wrong ? run.tiles[wrong[0]][PERSON] : null;
  const groups = [["Other queries of this person", own], ["Queries of the person first mistaken for this one", taken]];
  return groups.flatMap(([title, person]) => {
    const others = run.queries.map((_, other) => other)
      .filter((other) => other !== place && run.tiles[run.queries[other][TILE]][PERSON] === person);
    const buttons = others.map((other) => {
      const [number, , ap] = run.queries[other];
      const button = make("button", { type: "button" }, `query ${number}, AP ${percent(ap)}`);
      button.onclick = () => { find("#query-person").value = ""; find("#query-kind").value = "all"; refresh(other); };
      return button;
    });
    return buttons.length ? [make("h3", {}, title), make("div", { className: "others" }, ...buttons)] : [];
  });
}

function refresh(wanted) {
  const run = data[find("#query-run").value];
  const places = listed(run);
  find("#query-list").replaceChildren(...places.map((place) => option(run, place)));
  const whole = run.total > run.queries.length ? `${run.queries.length} here (${run.total} in all)` : `${run.queries.length}`;
  find("#query-count").textContent = `${places.length} of ${whole} queries`;
  run.places = places;
  if (places.length) pick(run, places.includes(wanted) ? wanted : places[0]); // also writes the address
  else find("#query-detail").replaceChildren(make("p", {}, "No such query among those shown."));
}

if (find("#query-run")) {
  Object.entries(data).forEach(([name, run], i) => {
    run.name = name;
    run.sheetClass = `sheet-${i}`; // one rule holds the picture: as a style of each tile it would be read again for each
    if (run.sheet) document.head.append(make("style", {}, `.${run.sheetClass} { background-image: url(${run.sheet}); }`));
  });
  all("#query-run, #query-order, #query-kind").forEach((control) => { control.onchange = () => refresh(); });
  find("#query-person").oninput = () => refresh();
  find("#query-list").onkeydown = (event) => {
    const run = data[find("#query-run").value];
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (!step || !run.places.length) return;
    event.preventDefault();
    const place = run.places.indexOf(run.picked) + step;
    pick(run, run.places[Math.max(0, Math.min(run.places.length - 1, place))]);
  };
  const before = location.hash;
  refresh();
  const asked = decodeURIComponent(before).match(/^#query=(.*)\/(\d+)$/); // the address of a query
  if (asked && data[asked[1]]) {
    find("#query-run").value = asked[1];
    refresh(data[asked[1]].queries.findIndex((query) => query[QUERY] === Number(asked[2])));
    find("#queries").scrollIntoView();
  } else {
    history.replaceState(null, "", before || location.pathname + location.search);
  }
}
