// The review desk in a notebook: keys, buttons and links of the desk's page. Each act is one message, answered by a new page.
const PATIENCE = 5000; // milliseconds
const SLOW =
  "The kernel has not answered yet. If it is busy with another cell, wait. If it was restarted, run this cell again: " +
  "every verdict that was answered is kept.";

function render({ model, el }) {
  const host = el.appendChild(document.createElement("div"));
  host.dataset.lmSuppressShortcuts = "true"; // JupyterLab then leaves our keys alone
  const root = host.attachShadow({ mode: "open" });
  const main = () => root.getElementById("main");
  let waiting = null; // the timer of an act that has no answer yet
  let looked = 0; // milliseconds that the row was looked at
  let since = null; // when the present look began

  function look() {
    const looking = !document.hidden && root.activeElement !== null;
    if (looking && since === null) since = performance.now();
    if (!looking && since !== null) {
      looked += performance.now() - since;
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
    for (const link of parsed.querySelectorAll("a[href]")) {
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
    root.querySelector("header").replaceWith(document.adoptNode(next.querySelector("header")));
    main().replaceWith(document.adoptNode(next.getElementById("main")));
    looked = 0;
    since = null;
    if (focused) {
      main().focus({ preventScroll: true });
      if (host.getBoundingClientRect().top < 0) host.scrollIntoView();
      look();
    }
    root.getElementById("live").textContent = (root.getElementById("announce") ?? main()).innerText;
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

  function act(name, told) {
    const { detector, filters } = main().dataset;
    if (detector) ask({ act: name, detector, filters, ...told });
  }

  function judge(verdict) {
    const { rowId, seen } = main().dataset;
    look();
    const seconds = (looked + (since === null ? 0 : performance.now() - since)) / 1000;
    act("verdict", { row_id: rowId, seen: Number(seen), verdict, note: root.getElementById("note").value, seconds });
  }

  const ACTS = {
    skip: () => act("skip", { row_id: main().dataset.rowId }),
    undo: () => act("undo", { last: main().dataset.last }),
    unskip: () => act("unskip", {}),
  };

  function clicked(event) {
    const link = event.target.closest("[data-to]");
    const button = event.target.closest("button");
    if (link) ask({ go: link.dataset.to });
    else if (!button) return;
    else if (button.dataset.verdict) judge(button.dataset.verdict);
    else if (button.dataset.act) ACTS[button.dataset.act]();
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

  function told(message) {
    if (message.text === undefined) return;
    const box = root.getElementById(message.side);
    box.textContent = message.text;
    box.nextElementSibling?.remove(); // that the rest is left out
  }

  let shown = model.get("page").html;
  const first = withoutLinks(new DOMParser().parseFromString(shown, "text/html"));
  const style = document.createElement("style");
  style.textContent = model.get("look");
  root.append(style, document.adoptNode(first.querySelector(".desk")));
  root.addEventListener("click", clicked);
  root.addEventListener("keydown", pressed);
  root.addEventListener("submit", (event) => event.preventDefault());
  root.addEventListener("focusin", look);
  root.addEventListener("focusout", () => queueMicrotask(look));
  document.addEventListener("visibilitychange", look);
  model.on("change:page", answered);
  model.on("msg:custom", told);
  return () => {
    clearTimeout(waiting);
    document.removeEventListener("visibilitychange", look);
    model.off("change:page", answered);
    model.off("msg:custom", told);
  };
}

export default { render };
