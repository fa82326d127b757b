// What the three pages share. Everything shown is made of text nodes and attributes, never of
// markup: a picture may be named like a tag.

export const main = document.getElementById("main");
export const STATES = ["done", "skipped", "failed", "quarantined"];

export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(9).filter((child) => child != null && child !== false));
  return element;
}

// The parameters of the address. A + is a +: run ids have one.
export function asked() {
  const found = new Map();
  for (const pair of location.search.slice(1).split("&").filter(Boolean)) {
    const [name, value = ""] = pair.split("=");
    found.set(decoded(name), decoded(value));
  }
  return found;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function address(path, parameters = {}) {
  const pairs = Object.entries(parameters)
    .flatMap(([name, value]) => [value].flat().map((each) => [name, each]))
    .filter(([, value]) => value != null && value !== "" && value !== false);
  const query = pairs.map((pair) => pair.map(encoded).join("=")).join("&");
  return query ? `${path}?${query}` : path;
}

// A name may hold half a character, for which an address has no place.
const encoded = (value) => encodeURIComponent(String(value).replace(/\p{Surrogate}/gu, "\ufffd"));

export const runAddress = (dag, run, more) => address("run", { dag_id: dag, run_id: run, ...more });
export const pictureAddress = (dag, run, key, part) =>
  address("picture", { dag_id: dag, run_id: run, key, part });

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Ask our own server, or (airflow) Airflow's REST API, with the user's session.
export async function get(path, parameters) {
  return answer(await fetch(address(path, parameters), { headers: { Accept: "application/json" } }));
}

export async function airflow(path, body) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  return answer(await fetch(`../api/v2/${path}`, options));
}

async function answer(response) {
  if (response.ok) return response.json();
  const detail = await response.json().then((found) => found.detail, () => "");
  const said = typeof detail === "string" ? detail : JSON.stringify(detail);
  const what = {
    401: "You are not signed in, or no longer. Sign in to Airflow and load this page again.",
    403: `Your Airflow role does not allow this. ${said}`,
    404: said || "There is no such thing.",
  }[response.status] ?? `${said || "The server does not answer as it should"} (${response.status})`;
  throw new Refused(response.status, what);
}

export const dagPath = (dag) => `dags/${encodeURIComponent(dag)}`;
export const runPath = (dag, run) => `${dagPath(dag)}/dagRuns/${encodeURIComponent(run)}`;

// A page begins; what goes wrong is shown in it.
export function begin(make) {
  theme();
  addEventListener("storage", theme);
  make()
    .catch((error) => main.append(wrong(error)))
    .finally(() => document.getElementById("wait")?.remove());
}

export function wrong(error, not = "The page could not be made") {
  const what = error instanceof Refused ? error.message : `${not}: ${error.message}`;
  return h("div", { class: "note wrong", role: "alert" }, h("p", {}, what));
}

// What the user chose in Airflow.
function chosen(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // the browser keeps nothing
  }
}

function theme() {
  document.documentElement.dataset.theme = chosen("theme") ?? "";
}

function zone() {
  try {
    const timeZone = JSON.parse(chosen("timezone")) ?? undefined;
    Intl.DateTimeFormat("en", { timeZone });
    return timeZone;
  } catch {
    return undefined; // that of the browser, as in Airflow
  }
}

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const ZONE = zone();
const DATE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium", timeZone: ZONE });

export const number = (value) => (value == null ? "–" : NUMBER.format(value));

export function bytes(value) {
  if (value == null) return "–";
  let unit = 0;
  for (; value >= 1000 && unit < 5; unit += 1) value /= 1000;
  return `${NUMBER.format(value)} ${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
}

export function seconds(value) {
  if (value == null) return "–";
  if (value < 59.95) return `${NUMBER.format(value)} s`;
  const whole = Math.round(value);
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes} min ${whole % 60} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const date = (text) =>
  text ? h("time", { datetime: text, title: text }, DATE.format(new Date(text))) : "–";

// Since when a run is there: that of a backfill stands for a day long before.
export const since = (run) => run.start_date ?? run.queued_at;
export const runDate = (run) =>
  [date(since(run)), run.run_type === "backfill" && h("span", {}, ", backfill of ", date(run.logical_date))];

// When a day begins where people read the page's dates, or some days after it.
export function dayBegins(day, later = 0) {
  const wanted = Date.parse(day) + later * 86_400_000;
  const shown = (at) => Date.parse(`${new Date(at).toLocaleString("sv-SE", { timeZone: ZONE }).replace(" ", "T")}Z`);
  let at = wanted;
  for (const _ of [1, 2]) at += wanted - shown(at); // twice: the offset may change in between
  return new Date(at).toISOString();
}

export const state = (name) => h("span", { class: `state ${name}` }, name ?? "none");

export function facts(...pairs) {
  const shown = pairs.filter(([, value]) => value != null && value !== "");
  return h("dl", { class: "facts" }, shown.map(([name, value]) => [
    h("dt", {}, name),
    h("dd", {}, value),
  ]));
}

export function inline(...pairs) {
  const shown = pairs.filter(([, value]) => value != null && value !== "");
  return h("dl", { class: "inline" }, shown.map(([name, value]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export const json = (value) => h("pre", { tabindex: "0" }, JSON.stringify(value, null, 2));

export function folded(title, ...content) {
  return h("details", { class: "card" }, h("summary", {}, h("strong", {}, title)), content);
}

// A page of Airflow itself. A frame may not leave it, so its own router is asked.
export function airflowLink(path, text) {
  const target = `../${path}`;
  return h("a", { href: target, onclick: (event) => leave(event, target) }, text);
}

function leave(event, target) {
  if (parent === self) return;
  event.preventDefault();
  parent.history.pushState({}, "", new URL(target, location.href).pathname);
  parent.dispatchEvent(new PopStateEvent("popstate", { state: {} }));
}

// A picture in small. Where there is none it says why.
export function thumb(where, role, text, href) {
  const source = address("preview", { ...where, role, side: 160 });
  const image = h("img", { src: source, alt: text, loading: "lazy", decoding: "async" });
  const frame = href
    ? h("a", { class: "thumb", href }, image)
    : h("span", { class: "thumb" }, image);
  image.addEventListener("error", () => absent(image, source));
  return frame;
}

export async function absent(image, source) {
  const found = await fetch(source, { headers: { Accept: "application/json" } });
  if ((found.ok || found.status === 503) && !image.dataset.again) {
    image.dataset.again = "once"; // the server had too much to do
    if (!found.ok) await new Promise((done) => setTimeout(done, 1000 * (found.headers.get("Retry-After") ?? 2)));
    image.src = source;
    return;
  }
  const why = found.ok ? "the browser cannot show it" : await answer(found).catch((error) => error.message);
  image.replaceWith(h("span", { class: "quiet", title: why }, "not shown", h("span", { class: "unseen" }, `: ${why}`)));
}

// A button for what not everybody may do.
export function action(text, may, act, why = "Your Airflow role does not allow this.") {
  if (!may) {
    const id = `why-${(reasons += 1)}`;
    return h("span", { class: "barred" },
      h("button", { type: "button", disabled: true, "aria-describedby": id }, text),
      h("small", { class: "quiet", id }, why));
  }
  const done = () => act().catch((error) => button.parentElement.after(wrong(error, "It was not done")));
  const button = h("button", { type: "button", onclick: done }, text);
  return button;
}

let reasons = 0;

// Ask before something is done. `fields` are labelled elements; returns whether it was confirmed.
export function confirmed(title, explanation, button, ...fields) {
  return new Promise((resolve) => {
    const form = h("form", { method: "dialog" },
      h("h2", {}, title),
      [explanation].flat().filter(Boolean).map((text) => h("p", {}, text)),
      fields,
      h("div", { class: "bar" },
        h("button", { type: "button", onclick: () => dialog.close("") }, "Cancel"),
        h("button", { class: "first", value: "yes" }, button)));
    const dialog = h("dialog", { "aria-label": title }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export async function triggered(dag, conf) {
  return airflow(`${dagPath(dag)}/dagRuns`, { logical_date: null, conf });
}

// How many pictures have an outcome.
export const total = (counts) => STATES.reduce((sum, name) => sum + (counts?.[name] ?? 0), 0);

// What became of the pictures: the counts, each a link to those, and a bar of their shares.
export function share(counts, href) {
  const all = total(counts);
  let left = 0;
  const one = (name) => [h("strong", {}, number(counts[name] ?? 0)), name];
  return h("div", {}, h("ul", { class: "counts" }, STATES.map((name) => h("li", {}, href
    ? h("a", { class: counts[name] ? name : "zero", href: href(name) }, one(name))
    : h("span", { class: counts[name] ? name : "zero" }, one(name))))), svg("svg", { class: "share", viewBox: "0 0 100 1", preserveAspectRatio: "none",
    "aria-hidden": "true" },
    STATES.map((name) => {
      const width = all ? (100 * (counts[name] ?? 0)) / all : 0;
      left += width;
      return svg("rect", { class: name, x: left - width, y: 0, width, height: 1 });
    })));
}
