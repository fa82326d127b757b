import {
  absent, address, asked, begin, bytes, date, facts, folded, get, h, json, main, number, runAddress,
  seconds, state, wrong,
} from "./page.js";

const here = asked();
const dag = here.get("dag_id") ?? "";
const id = here.get("run_id") ?? "";
const key = here.get("key") ?? "";
const part = here.get("part") ?? "";
const where = { dag_id: dag, run_id: id, key, part };

begin(async () => {
  if (!dag || !id || !key) throw new Error("the address names no picture: choose one from a run");
  document.title = key;
  main.querySelector("h1").replaceWith(h("header", {},
    h("nav", { "aria-label": "Way" }, h("a", { href: "./" }, "Images"), " / ",
      h("a", { href: address("./", { dag_id: dag }) }, dag), " / ", h("a", { href: runAddress(dag, id) }, id)),
    h("h1", {}, key)));
  const found = await get("api/picture", where);
  main.append(outcome(found.outcome));
  const numbers = {};
  const panels = found.pictures.map((picture) => {
    const number = numbers[picture.role] ?? 0;
    numbers[picture.role] = number + 1;
    return panel(picture, number);
  });
  main.append(panels.length
    ? h("div", { class: "panels" }, panels)
    : h("p", {}, "This workflow has no pictures of its own to show."));
  if (found.more) main.append(h("p", {}, `… and ${number(found.more)} more.`));
  main.append(folded("Planned as", json(found.item)));
  if (found.outcome && Object.keys(found.outcome.detail).length) main.append(folded("Receipt", json(found.outcome.detail)));
});

function outcome(ended) {
  if (!ended) return h("div", { class: "note" }, h("p", {}, "It has no outcome yet, or its task ended before it had one."));
  return h("div", { class: `note ${["failed", "quarantined"].includes(ended.state) ? "wrong" : ""}` },
    h("p", {}, state(ended.state), ` ${ended.reason}`),
    h("p", { class: "quiet" }, date(ended.at), `, ${seconds(ended.seconds)}`));
}

function panel(picture, number) {
  const title = `${picture.role}: ${picture.key}`;
  return h("section", { class: "panel", "aria-label": title },
    h("h2", {}, title),
    picture.changed && h("p", { class: "note" }, "Another file than that of this run: it changed since."),
    picture.problem ? h("p", { class: "note wrong" }, picture.problem) : shown(picture, number),
    facts(["Where", picture.address ?? picture.url], ["Bytes", picture.bytes == null ? null : bytes(picture.bytes)],
      ["Written", picture.modified && date(picture.modified)], ["ETag", picture.version]),
    picture.levels && pyramid(picture),
    picture.no_pyramid && h("p", { class: "quiet" }, `No pyramid: ${picture.no_pyramid}`),
    picture.metadata && Object.keys(picture.metadata).length > 0
      && h("details", {}, h("summary", {}, "Written with it"), facts(...Object.entries(picture.metadata))));
}

function shown(picture, number) {
  if (picture.levels) return zoom(picture, number);
  const source = address("preview", { ...where, role: picture.role, number, side: 1200 });
  const image = h("img", { src: source, alt: `${picture.role} of ${key}` });
  image.addEventListener("error", () => absent(image, source));
  return image;
}

function pyramid(picture) {
  const right = !picture.faults.length;
  return [
    h("h3", {}, "Validation"),
    right
      ? h("p", { class: "done" }, "Its structure is right: every level and tile is there.")
      : h("div", { class: "note wrong" }, picture.faults.map((fault) => h("p", {}, fault))),
    h("h3", {}, "Levels"),
    h("table", {},
      h("caption", { class: "unseen" }, "Levels of the pyramid"),
      h("thead", {}, h("tr", {}, ["Level", "Width", "Height", "Tiles"].map((text) => h("th", { scope: "col", class: "number" }, text)))),
      h("tbody", {}, picture.levels.map(({ width, height, tile }, level) => h("tr", {},
        [level, width, height, Math.ceil(width / tile) * Math.ceil(height / tile)].map((value) => h("td", { class: "number" }, number(value))))))),
    h("details", {}, h("summary", {}, "The file's own description"), facts(...Object.entries(picture.facts).map(([name, value]) =>
      [name.replaceAll("_", " "), typeof value === "object" ? JSON.stringify(value) : String(value)]))),
  ];
}

let loading = null;

// The viewer, which is larger than all else here, once and only where there is a pyramid.
function library() {
  loading ??= new Promise((onload, reject) => {
    const onerror = () => reject(new Error("the viewer did not load: reload the page"));
    document.head.append(h("script", { src: "static/openseadragon-6.1.1.min.js", onload, onerror }));
  });
  return loading;
}

// OpenSeadragon counts levels from the smallest; the file has the largest first.
function zoom(picture, number) {
  const { levels } = picture;
  const box = h("div", { class: "viewer" });
  const buttons = h("div", { class: "bar" });
  const said = h("p", { role: "status", class: "quiet" });
  library().then(() => {
    const { OpenSeadragon } = globalThis;
    const source = new OpenSeadragon.TileSource({
      width: levels[0].width, height: levels[0].height, tileSize: levels[0].tile,
      tileOverlap: 0, minLevel: 0, maxLevel: levels.length - 1,
    });
    const at = (level) => levels[levels.length - 1 - level];
    source.getLevelScale = (level) => at(level).width / levels[0].width;
    source.getNumTiles = (level) => new OpenSeadragon.Point(
      Math.ceil(at(level).width / at(level).tile), Math.ceil(at(level).height / at(level).tile));
    source.getTileUrl = (level, column, row) => address("tile", {
      dag_id: dag, run_id: id, key, role: picture.role, number, level: levels.length - 1 - level, column, row });
    const viewer = new OpenSeadragon.Viewer({
      element: box, tileSources: source, drawer: "canvas", showNavigationControl: false, maxZoomPixelRatio: 4,
      imageSmoothingEnabled: true, timeout: 60_000, tileRetryMax: 2, tileRetryDelay: 2000,
    });
    viewer.addHandler("tile-load-failed", ({ tile }) => {
      said.textContent = "A part of the picture could not be shown.";
      get(tile.getUrl()).catch((error) => { said.textContent = error.message; });
    });
    viewer.canvas.setAttribute("aria-label", `${picture.role} of ${key}: arrow keys move, plus and minus zoom`);
    viewer.canvas.setAttribute("role", "application");
    const act = (text, make) => buttons.append(h("button", { type: "button", onclick: () => make(viewer.viewport) }, text));
    act("Zoom in", (view) => view.zoomBy(2).applyConstraints());
    act("Zoom out", (view) => view.zoomBy(0.5).applyConstraints());
    act("Whole picture", (view) => view.goHome());
    act("Pixel for pixel", (view) => view.zoomTo(view.imageToViewportZoom(1 / devicePixelRatio)));
  }).catch((error) => box.replaceWith(wrong(error)));
  return h("div", {}, box, buttons, said);
}
