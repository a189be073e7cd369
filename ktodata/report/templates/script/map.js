// The map of the prompts: moved, coloured and read by pointer and by keys.
//
// A canvas of our own, not a library's: Bokeh, the nearest that fits a page without a network, adds 1.3 MB to every report, fixes
// its colours when it draws (here they follow the theme), and shows its hover texts to a pointer only, not to a keyboard.
(() => {
  const NEAR = 12; // CSS pixels from the pointer to a dot
  const NAMED = 24; // clusters whose names stand on the map
  const HIDDEN = 1; // dots that a name may cover
  const MIN_ZOOM = 0.5;
  const MAX_ZOOM = 60;
  const EDGES = [0.1, 0.25, 0.5, 0.75, 1];

  function ways(points) {
    const count = points.x.length;
    const cluster = {
      of: (dot) => points.cluster[dot] ?? points.clusters.length,
      names: [...points.clusters.map(([number, name]) => `${number} ${name}`), "other"],
      colour: (kind) => (kind < points.clusters.length ? `--c${kind % 10}` : "--gone"),
    };
    const label = {
      of: (dot) => ({ 1: 0, 0: 1 })[points.label[dot]] ?? 2,
      names: ["given as desirable", "given as undesirable", "no label"],
      colour: (kind) => ["--desirable", "--undesirable", "--gone"][kind],
    };
    const doubt = {
      of: (dot) => (points.quality[dot] === null ? EDGES.length : EDGES.findIndex((edge) => 1 - points.quality[dot] <= edge + 1e-9)),
      names: [...EDGES.map((edge, at) => `doubt ${at ? EDGES[at - 1] : 0} to ${edge}`), "not scored"],
      colour: (kind) => (kind < EDGES.length ? `--d${kind}` : "--gone"),
    };
    const fate = { of: (dot) => points.fate[dot], names: points.fates, colour: (kind) => `--c${kind % 10}` };
    const coverage = {
      of: (dot) => (points.nearest_hole?.[dot] ? 0 : points.clusters[points.cluster[dot]]?.[3] ? 1 : 2),
      names: ["nearest to a hole: reference prompts that nothing here is like", "in a thin cluster", "elsewhere"],
      colour: (kind) => ["--undesirable", "--doubt", "--kept"][kind],
    };
    const all = { cluster, label, doubt, fate, coverage };
    for (const way of Object.values(all)) way.all = () => Array.from({ length: count }, (_, dot) => way.of(dot));
    return all;
  }

  async function open() {
    const points = await decode("map-data");
    const canvas = by("map-canvas");
    const pen = canvas.getContext("2d");
    const every = ways(points);
    const clusterOf = every.cluster.all();
    const wide = Math.max(...points.x);
    const high = Math.max(...points.y);
    const middles = points.clusters.map((_, at) => middle(points, clusterOf, at));
    let way = every.cluster;
    let kinds = clusterOf;
    let counts = counted(kinds);
    let only = null; // the one cluster shown
    let chosen = null; // the dot that is described
    let view = { x: wide / 2, y: high / 2, zoom: 1 };
    let width = 0;
    let height = 0;
    let planned = false;

    const scale = () => view.zoom * 0.92 * Math.min(width / Math.max(wide, 1), height / Math.max(high, 1));
    const place = (x, y) => [(x - view.x) * scale() + width / 2, (view.y - y) * scale() + height / 2];
    const shown = (dot) => only === null || clusterOf[dot] === only;

    function plan() {
      if (!planned) requestAnimationFrame(draw);
      planned = true;
    }

    function draw() {
      planned = false;
      const style = getComputedStyle(document.documentElement);
      const colour = (name) => style.getPropertyValue(name).trim();
      const dense = devicePixelRatio || 1;
      pen.setTransform(dense, 0, 0, dense, 0, 0);
      pen.clearRect(0, 0, width, height);
      const radius = Math.min(7, (points.x.length < 400 ? 3.4 : 2.5) * view.zoom ** 0.4);
      const paths = new Map();
      kinds.forEach((kind, dot) => {
        if (!shown(dot)) return;
        const [x, y] = place(points.x[dot], points.y[dot]);
        if (x < -9 || y < -9 || x > width + 9 || y > height + 9) return;
        if (!paths.has(kind)) paths.set(kind, new Path2D());
        paths.get(kind).moveTo(x + radius, y);
        paths.get(kind).arc(x, y, radius, 0, 7);
      });
      pen.globalAlpha = 0.8;
      // the rarest on top, where they can be seen
      for (const kind of [...paths.keys()].sort((one, other) => counts.get(other) - counts.get(one))) {
        pen.fillStyle = colour(way.colour(kind));
        pen.fill(paths.get(kind));
      }
      pen.globalAlpha = 1;
      if (way === every.cluster) names(colour);
      if (chosen !== null && shown(chosen)) {
        const [x, y] = place(points.x[chosen], points.y[chosen]);
        pen.strokeStyle = colour("--ink");
        pen.lineWidth = 2;
        pen.beginPath();
        pen.arc(x, y, radius + 4, 0, 7);
        pen.stroke();
      }
    }

    function names(colour) {
      pen.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.lineJoin = "round";
      pen.lineWidth = 4;
      pen.strokeStyle = colour("--paper");
      pen.fillStyle = colour("--ink");
      const dots = points.x.map((x, dot) => [...place(x, points.y[dot]), dot]).filter(([, , dot]) => shown(dot));
      const taken = [];
      middles.slice(0, only === null ? NAMED : undefined).forEach((at, kind) => {
        if (!at || (only !== null && only !== kind)) return;
        const own = dots.filter(([, , dot]) => clusterOf[dot] === kind);
        const [left, right] = [Math.min, Math.max].map((end) => end(...own.map(([x]) => x)));
        const [top, bottom] = [Math.min, Math.max].map((end) => end(...own.map(([, y]) => y)));
        const [middleX, middleY] = place(...at);
        if (middleX < 0 || middleX > width || middleY < 0 || middleY > height) return;
        const text = every.cluster.names[kind].slice(0, 34);
        const half = pen.measureText(text).width / 2 + 3;
        // over, under or beside its dots: where the name hides fewest of all and no other name stands; else the list below has it
        const free = [[middleX, top - 14], [middleX, bottom + 14], [right + half + 6, middleY], [left - half - 6, middleY]]
          .filter(([x, y]) => x >= half && x <= width - half && y >= 9 && y <= height - 9)
          .filter(([x, y]) => !taken.some(([a, b, c]) => Math.abs(a - x) < half + c && Math.abs(b - y) < 17))
          .map(([x, y]) => [dots.filter(([a, b]) => Math.abs(a - x) < half && Math.abs(b - y) < 11).length, x, y])
          .filter(([hidden]) => hidden <= HIDDEN)
          .sort(([one], [other]) => one - other);
        if (!free.length) return;
        const [, x, y] = free[0];
        taken.push([x, y, half]);
        pen.strokeText(text, x, y);
        pen.fillText(text, x, y);
      });
    }

    function nearest(x, y) {
      let best = null;
      let closest = NEAR * NEAR;
      for (let dot = 0; dot < points.x.length; dot++) {
        if (!shown(dot)) continue;
        const [a, b] = place(points.x[dot], points.y[dot]);
        const far = (a - x) ** 2 + (b - y) ** 2;
        if (far < closest) [best, closest] = [dot, far];
      }
      return best;
    }

    function describe(dot) {
      const facts = [every.cluster.names[clusterOf[dot]], every.label.names[every.label.of(dot)]];
      if (points.quality) facts.push(points.quality[dot] === null ? "label not scored" : `label quality ${points.quality[dot].toFixed(2)}`);
      facts.push(points.fates[points.fate[dot]]);
      if (points.nearest_hole?.[dot]) facts.push(`nearest to hole ${points.nearest_hole[dot]} of the reference set`);
      return [...facts, `row ${points.row_id[dot]}`].join(" · ");
    }

    function fill(node, dot) {
      node.replaceChildren();
      if (points.prompt) node.append(make("bdi", points.prompt[dot]));
      node.append(make("span", describe(dot), "quiet"));
    }

    function choose(dot) {
      chosen = dot;
      if (dot === null) by("map-status").replaceChildren();
      else fill(by("map-status"), dot);
      plan();
    }

    function tip(dot, x, y) {
      const node = by("map-tip");
      node.hidden = dot === null;
      if (dot === null) return;
      fill(node, dot);
      node.style.left = `${Math.min(Math.max(x + 14, 0), Math.max(0, width - node.offsetWidth - 4))}px`;
      node.style.top = y + node.offsetHeight + 20 < height ? `${y + 16}px` : `${Math.max(0, y - node.offsetHeight - 10)}px`;
    }

    function zoom(times, x = width / 2, y = height / 2) {
      const next = Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, view.zoom * times));
      const step = (1 / scale()) * (1 - view.zoom / next);
      view = { x: view.x + (x - width / 2) * step, y: view.y - (y - height / 2) * step, zoom: next };
      tip(null);
      plan();
    }

    function move(x, y) {
      view = { ...view, x: view.x - x / scale(), y: view.y + y / scale() };
      plan();
    }

    function whole() {
      view = { x: wide / 2, y: high / 2, zoom: 1 };
      plan();
    }

    // from left to right, whatever order the dots have
    const inOrder = points.x.map((_, dot) => dot).sort((one, other) => points.x[one] - points.x[other]);
    function step(on) {
      const visible = inOrder.filter(shown);
      const at = visible.indexOf(chosen);
      const dot = visible[at < 0 ? (on > 0 ? 0 : visible.length - 1) : (at + on + visible.length) % visible.length];
      if (dot === undefined) return;
      const [x, y] = place(points.x[dot], points.y[dot]);
      if (x < 0 || y < 0 || x > width || y > height) view = { ...view, x: points.x[dot], y: points.y[dot] };
      choose(dot);
    }

    function colourBy(name) {
      way = every[name];
      kinds = way.all();
      counts = counted(kinds);
      const there = name === "cluster" ? [] : [...counts.keys()].sort((one, other) => one - other);
      by("map-key").replaceChildren(...there.map((kind) => {
        const item = make("li");
        item.append(swatch(way.colour(kind)), make("bdi", way.names[kind]), make("span", formatted(counts.get(kind)), "quiet"));
        return item;
      }));
      by("map-clusters").classList.toggle("plain", name !== "cluster");
      plan();
    }

    function swatch(variable) {
      const square = make("span", undefined, "swatch");
      square.style.background = `var(${variable})`;
      return square;
    }

    function legend() {
      const inCluster = counted(clusterOf);
      const buttons = [...inCluster.keys()].sort((one, other) => one - other).map((kind) => {
        const button = make("button");
        button.type = "button";
        button.setAttribute("aria-pressed", "false");
        const rows = points.clusters[kind]?.[2];
        const size = rows === undefined ? `${formatted(inCluster.get(kind))} dots` : `${formatted(rows)} rows`;
        button.append(swatch(every.cluster.colour(kind)), make("bdi", every.cluster.names[kind]), make("span", size, "quiet"));
        button.addEventListener("click", () => {
          only = only === kind ? null : kind;
          buttons.forEach((other) => other.setAttribute("aria-pressed", String(only !== null && other === button)));
          choose(null);
          by("map-status").textContent = only === null
            ? `All ${formatted(clusterOf.length)} dots are shown.`
            : `Only ${every.cluster.names[kind]} is shown: ${formatted(inCluster.get(kind))} dots.`;
        });
        return button;
      });
      by("map-clusters").append(...buttons.map((button) => {
        const item = make("li");
        item.append(button);
        return item;
      }));
    }

    const KEYS = {
      ArrowLeft: () => move(40, 0),
      ArrowRight: () => move(-40, 0),
      ArrowUp: () => move(0, 40),
      ArrowDown: () => move(0, -40),
      "+": () => zoom(1.3),
      "=": () => zoom(1.3),
      "-": () => zoom(1 / 1.3),
      0: whole,
      n: () => step(1),
      p: () => step(-1),
      Escape: () => choose(null),
    };
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
      KEYS[event.key]();
      event.preventDefault();
    });

    let held = null;
    canvas.addEventListener("pointerdown", (event) => {
      held = { x: event.offsetX, y: event.offsetY, moved: 0 };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = [event.offsetX, event.offsetY];
      if (!held) return tip(nearest(x, y), x, y);
      move(x - held.x, y - held.y);
      held = { x, y, moved: held.moved + Math.abs(x - held.x) + Math.abs(y - held.y) };
      tip(null);
    });
    canvas.addEventListener("pointerup", (event) => {
      if (held && held.moved < 4) choose(nearest(event.offsetX, event.offsetY));
      held = null;
    });
    canvas.addEventListener("pointercancel", () => { held = null; });
    canvas.addEventListener("pointerleave", () => tip(null));
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // else the page could not be scrolled past the map
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }, { passive: false });
    by("map-in").addEventListener("click", () => zoom(1.5));
    by("map-out").addEventListener("click", () => zoom(1 / 1.5));
    by("map-whole").addEventListener("click", whole);
    by("map-by").addEventListener("change", () => colourBy(by("map-by").value));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", plan);

    legend();
    by("map-tool").hidden = false;
    by("map-tool").parentElement.classList.add("drawn");
    const fit = () => {
      [width, height] = [canvas.clientWidth, canvas.clientHeight];
      const dense = devicePixelRatio || 1;
      [canvas.width, canvas.height] = [Math.round(width * dense), Math.round(height * dense)];
      draw();
    };
    new ResizeObserver(fit).observe(canvas);
    fit();
  }

  function counted(kinds) {
    const counts = new Map();
    for (const kind of kinds) counts.set(kind, (counts.get(kind) ?? 0) + 1);
    return counts;
  }

  function middle(points, clusterOf, kind) {
    const here = points.x.map((_, dot) => dot).filter((dot) => clusterOf[dot] === kind);
    if (!here.length) return null;
    const median = (values) => values.sort((one, other) => one - other)[values.length >> 1];
    return [median(here.map((dot) => points.x[dot])), median(here.map((dot) => points.y[dot]))];
  }

  // where it fails, the picture stays
  window.mapReady = by("map-data") ? open().catch(() => {}) : Promise.resolve();
})();

