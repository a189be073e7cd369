// Keys and buttons of the review desk: each action is one request, answered with the page of the next row.
"use strict";

(() => {
  const KEYS = { k: "keep", f: "flip", d: "drop", c: "contested" };
  const BLIND_KEYS = { g: "desirable", b: "undesirable", d: "drop", c: "contested" };
  const csrf = document.querySelector("meta[name=csrf]").content;
  const help = () => document.getElementById("help");
  let busy = false;
  let visibleMs = 0; // that the row was in sight
  let since = document.hidden ? null : performance.now();

  const main = () => document.getElementById("main");
  const note = () => document.getElementById("note");

  document.addEventListener("visibilitychange", () => {
    if (document.hidden && since !== null) {
      visibleMs += performance.now() - since;
      since = null;
    } else if (!document.hidden && since === null) {
      since = performance.now();
    }
  });

  function seconds() {
    return (visibleMs + (since === null ? 0 : performance.now() - since)) / 1000;
  }

  function complain(text) {
    const problem = document.getElementById("problem");
    problem.querySelector("span").textContent = text;
    problem.hidden = !text;
  }

  function show(html) {
    // scripts in a parsed document never run, and the page's policy would not let them
    const next = new DOMParser().parseFromString(html, "text/html");
    // the bar and the keys say whether the label is hidden, which differs from row to row
    for (const part of ["header", "#main", "#help"]) document.querySelector(part).replaceWith(document.adoptNode(next.querySelector(part)));
    document.title = next.title;
    const here = `/${main().dataset.filters}`;
    if (location.pathname + location.search !== here) history.replaceState(null, "", here);
    visibleMs = 0;
    since = document.hidden ? null : performance.now();
    scrollTo(0, 0);
    showLastTurn();
    main().focus({ preventScroll: true });
    document.getElementById("live").textContent = document.getElementById("announce").innerText;
  }

  // of a long conversation the last turn is what was answered
  function showLastTurn() {
    const prompt = document.getElementById("prompt");
    if (!prompt) return;
    prompt.scrollTop = prompt.scrollHeight;
    const last = prompt.querySelector(".turn:last-child");
    const above = last ? prompt.getBoundingClientRect().top + prompt.clientTop - last.getBoundingClientRect().top : 0;
    if (above > 0) prompt.scrollTop -= above; // a long turn is read from its beginning
  }

  function unfold() {
    const unfolded = main().classList.toggle("unfolded");
    for (const thought of main().querySelectorAll(".thought")) thought.open = unfolded;
  }

  async function act(name, fields) {
    if (busy || !main().dataset.detector) return;
    busy = true;
    const { detector, filters } = main().dataset;
    try {
      const answer = await fetch(`/${name}`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
        body: JSON.stringify({ detector, filters, ...fields }),
      });
      const text = await answer.text();
      if (answer.ok) {
        complain("");
        show(text);
      } else {
        complain(answer.headers.get("Content-Type").startsWith("application/json") ? JSON.parse(text).problem : text);
      }
    } catch {
      complain("The desk does not answer: the verdict on this row may not have been kept. Is `ktodata review` still running?");
    } finally {
      busy = false;
    }
  }

  function judge(verdict) {
    const { rowId, currentId } = main().dataset;
    if (rowId) act("verdict", { row_id: rowId, current_id: Number(currentId), verdict, note: note().value, seconds: seconds() });
  }

  function skip() {
    const { rowId } = main().dataset;
    if (rowId) act("skip", { row_id: rowId });
  }

  function undo() {
    const { undoToken } = main().dataset;
    if (undoToken) act("undo", { undo_token: undoToken });
  }

  const ACTIONS = { skip, undo, unskip: () => act("unskip", {}) };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.verdict) judge(button.dataset.verdict);
    else if (button.dataset.action) ACTIONS[button.dataset.action]();
    else if (button.id === "open-help") help().showModal();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || help().open) return;
    if (event.target.matches("textarea, select, input")) {
      if (event.key === "Escape") main().focus({ preventScroll: true });
      return;
    }
    // a key that is held down must not judge rows that nobody has read
    if (event.repeat) return;
    const verdicts = main().dataset.blind === "yes" ? BLIND_KEYS : KEYS;
    const actions = {
      s: skip,
      u: undo,
      n: () => note() && note().focus(),
      e: unfold,
      p: () => location.assign("/progress"),
      r: () => location.assign("/"),
      "?": () => help().showModal(),
      "/": () => {
        const filters = document.getElementById("filters");
        if (!filters) return;
        filters.open = true;
        filters.querySelector("select").focus();
      },
    };
    if (Object.hasOwn(verdicts, event.key)) judge(verdicts[event.key]);
    else if (Object.hasOwn(actions, event.key)) actions[event.key]();
    else return;
    event.preventDefault();
  });

  document.addEventListener("submit", (event) => {
    if (event.target.id === "verdict-form") event.preventDefault();
  });
  showLastTurn();
  document.documentElement.dataset.ready = "yes"; // from here on keys count
})();
