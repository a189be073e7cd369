// The review desk in a notebook: keys, buttons and links of the desk's page. Each action is one message, answered by a new page.
const PATIENCE = 5000; // milliseconds
const SLOW =
  "The kernel has not answered yet. If it is busy with another cell, wait. If it was restarted, run this cell again: " +
  "every verdict that was answered is kept.";

function render({ model, el }) {
  const host = el.appendChild(document.createElement("div"));
  host.dataset.lmSuppressShortcuts = "true"; // JupyterLab then leaves our keys alone
  const root = host.attachShadow({ mode: "open" });
  const main = () => root.getElementById("main");
  let waiting = null; // the timer of an action that has no answer yet
  let visibleMs = 0; // that the row was in sight
  let since = null; // since when it is in sight

  function timeVisible() {
    const inSight = !document.hidden && root.activeElement !== null;
    if (inSight && since === null) since = performance.now();
    if (!inSight && since !== null) {
      visibleMs += performance.now() - since;
      since = null;
    }
  }

  function complain(text) {
    const problem = root.getElementById("problem");
    problem.querySelector("span").textContent = text;
    problem.hidden = !text;
  }

  // a link of the web desk leads nowhere in a notebook: it asks the kernel instead
  function withoutLinks(parsed) {
    for (const link of parsed.querySelectorAll('a[href^="/"]')) {
      link.dataset.to = link.getAttribute("href");
      link.removeAttribute("href");
      link.setAttribute("role", "link");
      link.tabIndex = 0;
    }
    return parsed;
  }

  function show(html) {
    // scripts in a parsed document never run
    const next = withoutLinks(new DOMParser().parseFromString(html, "text/html"));
    const focused = root.activeElement !== null;
    for (const part of ["header", "#main", "#help"]) root.querySelector(part).replaceWith(document.adoptNode(next.querySelector(part)));
    showLastTurn();
    visibleMs = 0;
    since = null;
    if (focused) {
      main().focus({ preventScroll: true });
      if (host.getBoundingClientRect().top < 0) host.scrollIntoView();
      timeVisible();
    }
    root.getElementById("live").textContent = (root.getElementById("announce") ?? main()).innerText;
  }

  // the last turn is what was answered; a long one is read from its beginning
  function showLastTurn() {
    const prompt = root.getElementById("prompt");
    if (!prompt) return;
    prompt.scrollTop = prompt.scrollHeight;
    const last = prompt.querySelector(".turn:last-child");
    const above = last ? prompt.getBoundingClientRect().top + prompt.clientTop - last.getBoundingClientRect().top : 0;
    if (above > 0) prompt.scrollTop -= above;
  }

  function unfold() {
    const unfolded = main().classList.toggle("unfolded");
    for (const thought of main().querySelectorAll(".thought")) thought.open = unfolded;
  }

  function answered() {
    const page = model.get("page");
    clearTimeout(waiting);
    waiting = null;
    complain(page.problem);
    if (page.html !== shown) show(page.html);
    shown = page.html;
  }

  function ask(message) {
    if (waiting !== null) return;
    waiting = setTimeout(() => complain(SLOW), PATIENCE);
    model.send(message);
  }

  function act(name, fields) {
    const { detector, filters } = main().dataset;
    if (detector) ask({ action: name, detector, filters, ...fields });
  }

  function judge(verdict) {
    const { rowId, currentId } = main().dataset;
    timeVisible();
    const seconds = (visibleMs + (since === null ? 0 : performance.now() - since)) / 1000;
    act("verdict", { row_id: rowId, current_id: Number(currentId), verdict, note: root.getElementById("note").value, seconds });
  }

  const ACTIONS = {
    skip: () => act("skip", { row_id: main().dataset.rowId }),
    undo: () => act("undo", { undo_token: main().dataset.undoToken }),
    unskip: () => act("unskip", {}),
  };

  function clicked(event) {
    const link = event.target.closest("[data-to]");
    const button = event.target.closest("button");
    if (link) ask({ go: link.dataset.to });
    else if (!button) return;
    else if (button.dataset.verdict) judge(button.dataset.verdict);
    else if (button.dataset.action) ACTIONS[button.dataset.action]();
    else if (button.id === "open-help") root.getElementById("help").showModal();
    else if (button.closest("dialog")) root.getElementById("help").close();
    else if (button.form) ask({ go: `/?${new URLSearchParams(new FormData(button.form))}` });
    event.preventDefault();
  }

  function openFilters() {
    const filters = root.getElementById("filters");
    if (!filters) return;
    filters.open = true;
    filters.querySelector("select").focus();
  }

  // the button on the page that names the key: what a blind reviewer may press differs, and the page knows it
  function buttonOf(key) {
    const named = (button) => button.querySelector("kbd")?.textContent === key && !button.disabled;
    return [...root.querySelectorAll("header button, main button")].find(named);
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    event.stopPropagation(); // a notebook has shortcuts of its own: d d deletes a cell
    if (root.getElementById("help").open) return;
    if (event.target.matches("textarea, select, input")) {
      if (event.key === "Escape") main().focus({ preventScroll: true });
      return;
    }
    // a key that is held down must not judge rows that nobody has read
    if (event.repeat) return;
    const keys = {
      n: () => root.getElementById("note")?.focus(),
      e: unfold,
      p: () => ask({ go: "/progress" }),
      r: () => ask({ go: "/" }),
      "/": openFilters,
    };
    if (event.key === "Enter" && event.target.matches("[data-to]")) event.target.click();
    else if (Object.hasOwn(keys, event.key)) keys[event.key]();
    else if (buttonOf(event.key)) buttonOf(event.key).click();
    else return;
    event.preventDefault();
  }

  function received(message) {
    if (message.text === undefined) return;
    const box = root.getElementById(message.side);
    box.textContent = message.text;
    box.classList.remove("turns");
    box.nextElementSibling?.remove(); // that the rest is left out
  }

  let shown = model.get("page").html;
  const first = withoutLinks(new DOMParser().parseFromString(shown, "text/html"));
  const style = document.createElement("style");
  style.textContent = model.get("css");
  root.append(style, document.adoptNode(first.querySelector(".review")));
  requestAnimationFrame(showLastTurn); // once it stands in the page
  root.addEventListener("click", clicked);
  root.addEventListener("keydown", pressed);
  root.addEventListener("submit", (event) => event.preventDefault());
  root.addEventListener("focusin", timeVisible);
  root.addEventListener("focusout", () => queueMicrotask(timeVisible));
  document.addEventListener("visibilitychange", timeVisible);
  model.on("change:page", answered);
  model.on("msg:custom", received);
  return () => {
    clearTimeout(waiting);
    document.removeEventListener("visibilitychange", timeVisible);
    model.off("change:page", answered);
    model.off("msg:custom", received);
  };
}

export default { render };
