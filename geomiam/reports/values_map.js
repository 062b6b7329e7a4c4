// Draws the layers of a map and lists the values of one cell. Texts are set as text, never as HTML.
(() => {
  "use strict";
  const MISSING = 255, LAST = 254, MOST_ITEMS = 12;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  function element(tag, parent, text) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function valueText(layer, code) {
    if (code === MISSING) return "no value";
    if (layer.labels) return layer.labels[code];
    const value = layer.low + (code / LAST) * (layer.high - layer.low);
    const sign = code === 0 && layer.below ? "≤ " : code === LAST && layer.above ? "≥ " : "";
    return sign + value.toFixed(layer.digits).replace(/^-(0\.?0*)$/, "$1");
  }

  function colourOf(layer, code) {
    const last = layer.colours.length - 1;
    return layer.colours[layer.labels ? Math.min(code, last) : Math.round((code / LAST) * last)];
  }

  function choice(parent, title, names) {
    const label = element("label", parent, title + " ");
    const menu = element("select", label);
    names.forEach((name, i) => { element("option", menu, name).value = String(i); });
    return menu;
  }

  function start(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const layers = data.layers.map((layer) => ({ ...layer, codes: bytes(layer.codes) }));
    const controls = figure.querySelector(".controls");
    const map = figure.querySelector(".map");
    const readout = figure.querySelector(".readout");
    const state = { species: 0, layer: 0, row: 0, column: 0 };
    const shown = () => layers.filter((l) => l.species === null || l.species === state.species);

    const canvas = document.createElement("canvas");
    canvas.width = data.columns;
    canvas.height = data.rows;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "Map; arrow keys move to another cell");
    map.replaceChildren(canvas);
    const mark = element("div", map);
    mark.className = "mark";

    function draw() {
      const layer = shown()[state.layer];
      const picture = new ImageData(data.columns, data.rows);
      const rgb = layer.colours.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
      const byColour = new Map(layer.colours.map((c, i) => [c, rgb[i]]));
      layer.codes.forEach((code, i) => {
        if (code !== MISSING) picture.data.set([...byColour.get(colourOf(layer, code)), 255], 4 * i);
      });
      canvas.getContext("2d").putImageData(picture, 0, 0);
      legend(layer);
    }

    function legend(layer) {
      const box = figure.querySelector(".legend");
      box.replaceChildren();
      if (!layer.labels) {
        element("span", box, valueText(layer, 0));
        element("span", box).style.background = `linear-gradient(90deg, ${layer.colours.join(", ")})`;
        element("span", box, valueText(layer, LAST));
        box.children[1].className = "ramp";
        return;
      }
      const present = new Set(layer.codes);
      const codes = layer.labels.map((_, code) => code).filter((code) => present.has(code));
      codes.slice(0, MOST_ITEMS).forEach((code) => {
        const item = element("span", box);
        element("i", item).style.background = colourOf(layer, code);
        item.append(" " + layer.labels[code]);
      });
      if (codes.length > MOST_ITEMS) element("span", box, `and ${codes.length - MOST_ITEMS} more`);
    }

    function read() {
      const at = state.row * data.columns + state.column;
      mark.style.left = `${(100 * (state.column + 0.5)) / data.columns}%`;
      mark.style.top = `${(100 * (state.row + 0.5)) / data.rows}%`;
      readout.replaceChildren();
      const body = element("tbody", element("table", readout));
      const rows = shown().map((layer) => [layer.title, valueText(layer, layer.codes[at])]);
      rows.unshift([data.axes[0], data.x[state.column]], [data.axes[1], data.y[state.row]]);
      rows.forEach(([title, value]) => {
        const row = element("tr", body);
        element("th", row, title);
        element("td", row, String(value));
      });
    }

    function move(row, column) {
      state.row = Math.max(0, Math.min(data.rows - 1, row));
      state.column = Math.max(0, Math.min(data.columns - 1, column));
      read();
    }

    function point(event) {
      const box = canvas.getBoundingClientRect();
      move(
        Math.floor(((event.clientY - box.top) / box.height) * data.rows),
        Math.floor(((event.clientX - box.left) / box.width) * data.columns),
      );
    }

    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      move(state.row + step[0], state.column + step[1]);
    });

    let layerMenu;
    function layerChoice(title) {
      layerMenu?.parentElement.remove();
      layerMenu = choice(controls, "layer", shown().map((l) => l.title));
      state.layer = Math.max(0, shown().findIndex((l) => l.title === title));
      layerMenu.value = String(state.layer);
      layerMenu.addEventListener("change", () => { state.layer = Number(layerMenu.value); draw(); });
    }
    if (data.species.length > 1) {
      const menu = choice(controls, "species", data.species);
      menu.addEventListener("change", () => {
        const title = shown()[state.layer].title;
        state.species = Number(menu.value);
        layerChoice(title);
        draw();
        read();
      });
    }
    layerChoice();
    draw();
    const first = layers[0].codes;
    const best = first.reduce((i, code, j) => (code !== MISSING && (first[i] === MISSING || code > first[i]) ? j : i), 0);
    move(Math.floor(best / data.columns), best % data.columns);
  }

  document.querySelectorAll("figure.values").forEach(start);
})();
