// The search: all rows that left, twenty-five at a time.
(() => {
  const SHOWN = 25;
  const WAIT = 120; // milliseconds after a key, before it is searched

  async function open() {
    const rows = await decode("search-data");
    const count = rows.row_id.length;
    const filters = [["search-fate", 0], ["search-step", 1], ["search-reason", 2]];
    let texts = null; // made when the first word is searched
    let hits = [];
    let page = 0;

    function look() {
      by("search-found").open = true;
      search();
    }

    function search() {
      const typed = by("search-text").value.toLowerCase().match(/"[^"]+"|\S+/g) ?? [];
      const words = typed.map((word) => (word.length > 2 && word.startsWith('"') && word.endsWith('"') ? word.slice(1, -1) : word));
      if (words.length) texts ??= rows.row_id.map((_, row) => searched(rows, row));
      const wanted = filters.map(([id, part]) => [part, by(id).value]).filter(([, value]) => value);
      const kinds = rows.kinds.map((kind) => wanted.every(([part, value]) => kind[part] === value));
      hits = [];
      for (let row = 0; row < count; row++) {
        if (kinds[rows.kind[row]] && words.every((word) => texts[row].includes(word))) hits.push(row);
      }
      turn(0);
    }

    function turnAndShow(to) {
      by("search-found").open = true;
      turn(to);
    }

    function turn(to) {
      page = to;
      const first = page * SHOWN;
      const shown = hits.slice(first, first + SHOWN);
      const list = by("search-rows");
      list.start = first + 1;
      list.replaceChildren(...shown.map((row) => card(rows, row)));
      by("search-back").setAttribute("aria-disabled", page === 0);
      by("search-next").setAttribute("aria-disabled", first + SHOWN >= hits.length);
      tell();
    }

    // while the list is shut no row is shown
    function tell() {
      const first = page * SHOWN;
      const range = `, ${formatted(first + 1)} to ${formatted(Math.min(first + SHOWN, hits.length))} shown`;
      const matching = `${formatted(hits.length)} of ${formatted(count)} rows`;
      let status = `None of ${formatted(count)} rows. Try fewer words, or another filter.`;
      if (by("search-found").open && hits.length) status = matching + range;
      else if (hits.length === count) status = `${formatted(count)} ${count === 1 ? "row" : "rows"} to search`;
      else if (hits.length) status = matching;
      by("search-status").textContent = status;
    }

    for (const [id, part] of filters) {
      by(id).append(...choices(rows, part));
      by(id).addEventListener("change", look);
    }
    let waiting;
    by("search-text").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(look, WAIT);
    });
    by("search-found").addEventListener("toggle", tell);
    by("search-back").addEventListener("click", () => page > 0 && turnAndShow(page - 1));
    by("search-next").addEventListener("click", () => (page + 1) * SHOWN < hits.length && turnAndShow(page + 1));
    by("search-tool").hidden = false;
    search();
  }

  function searched(rows, row) {
    const parts = [rows.row_id[row], rows.causes.row_id[rows.cause[row]] ?? "", ...rows.kinds[rows.kind[row]]];
    if (rows.rater_source) parts.push(rows.evidence[row], ...rows.rater_source_pairs[rows.rater_source[row]]);
    if (rows.prompt) parts.push(rows.prompt[row], rows.completion[row]);
    return parts.join("\n").toLowerCase();
  }

  // the most frequent first, each with its number of rows
  function choices(rows, part) {
    const counts = new Map();
    for (const kind of rows.kind) {
      const name = rows.kinds[kind][part];
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    const most = [...counts].sort((one, other) => other[1] - one[1]);
    return most.map(([name, many]) => {
      const choice = make("option", `${name} (${formatted(many)})`);
      choice.value = name;
      return choice;
    });
  }

  function card(rows, row) {
    const [fate, step, reason] = rows.kinds[rows.kind[row]];
    const head = make("p", undefined, "head");
    head.append(make("strong", fate), make("span", `${step}: ${reason}`));
    if (rows.evidence?.[row]) head.append(make("bdi", rows.evidence[row]));
    const label = rows.label[row];
    if (label !== null) head.append(make("span", `given as ${label ? "desirable" : "undesirable"}`, `tag ${label ? "yes" : "no"}`));
    const origin = originOf(rows, row);
    if (origin) head.append(make("bdi", origin));
    head.append(named("row", rows.row_id[row]));
    const box = make("div", undefined, "row");
    box.append(head);
    if (rows.prompt) box.append(sides(rows, row, rows.excerpt));
    if (rows.cause[row] !== null) box.append(cause(rows, rows.cause[row]));
    const item = make("li");
    item.append(box);
    return item;
  }

  function named(what, id) {
    const name = make("span", `${what} `);
    name.append(make("code", id));
    return name;
  }

  function cause(rows, at) {
    const name = named("because of row", rows.causes.row_id[at]);
    if (!rows.prompt) return name;
    const shut = make("details");
    const summary = make("summary");
    summary.append(name);
    shut.append(summary, sides(rows.causes, at, rows.excerpt));
    return shut;
  }

  function originOf(rows, row) {
    if (!rows.rater_source) return "";
    const [rater, source] = rows.rater_source_pairs[rows.rater_source[row]];
    const line = rows.line[row];
    return [rater, line === null ? source : `${source}:${line}`].filter(Boolean).join(", ");
  }

  function sides(rows, row, excerpt) {
    const both = make("div", undefined, "sides");
    for (const which of ["prompt", "completion"]) {
      const length = rows[`${which}_chars`][row];
      if (length === null) continue;
      const side = make("div", undefined, "side");
      const begin = rows[which][row];
      side.append(make("span", rows.completion_chars[row] === null ? "the record" : which, "which"), make("bdi", begin));
      if (length > excerpt) side.append(make("span", ` … ${formatted(length)} characters in all`, "length"));
      both.append(side);
    }
    return both;
  }

  async function start() {
    if (!by("search-data")) return;
    try {
      await open();
    } catch (problem) {
      by("search-problem").textContent = `The search does not work in this browser (${problem.message}). All decisions are in ledger.parquet.`;
      by("search-problem").hidden = false;
    }
  }

  Promise.all([window.mapReady, start()]).then(() => {
    document.documentElement.dataset.ready = Math.round(performance.now());
  });
})();
