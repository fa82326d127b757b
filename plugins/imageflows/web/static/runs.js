import {
  STATES, action, address, airflow, asked, begin, bytes, confirmed, dagPath, dayBegins, get, h, main, number,
  runAddress, runDate, seconds, since, state, svg, total, triggered, wrong,
} from "./page.js";

const TAG = "imageflows";
const CHART = 30;
const LATEST = 8;
const RERUN = "pyramid_rerun";
const RUN_STATES = ["queued", "running", "success", "failed"];

begin(async () => {
  const filter = asked();
  const found = await airflow(address("dags", { tags: TAG, limit: 100, order_by: "dag_id" }));
  const dags = found.dags.map((dag) => dag.dag_id);
  main.append(form(filter, dags));
  if (dags.includes(RERUN) && !filter.get("dag_id")) main.append(rerun(await get("api/may", { dag_id: RERUN }).catch(() => ({}))));
  if (!dags.length) {
    main.append(h("p", {}, "There is no Imageflows DAG here that you may see. Airflow's page \"Dags\" says whether they loaded; your role says whether you may see them."));
    return;
  }
  const chosen = filter.get("dag_id");
  const sections = (chosen ? [chosen] : dags).map((dag) => section(dag, filter));
  const made = await Promise.all(sections);
  main.append(...made.filter((each) => each.runs).map((each) => each.element));
  const without = made.filter((each) => !each.runs);
  if (without.length === made.length) {
    main.append(h("p", {}, filter.size
      ? "No run is like that. Change the filter, or take it away."
      : "There are no runs yet. Trigger a DAG in Airflow, and what becomes of its pictures is shown here."));
  } else if (without.length) {
    main.append(h("p", { class: "quiet" }, `No runs${filter.size ? " like that" : " yet"}: ${without.map((each) => each.dag).join(", ")}.`));
  }
});

function form(filter, dags) {
  const option = (value, text, chosen) =>
    h("option", { value, selected: value === chosen }, text);
  const dag = h("select", { name: "dag_id" }, option("", "all", ""),
    dags.map((each) => option(each, each, filter.get("dag_id"))));
  const ended = h("select", { name: "state" }, option("", "any", ""),
    RUN_STATES.map((each) => option(each, each, filter.get("state"))));
  const from = h("input", { type: "date", name: "from", value: filter.get("from") });
  const to = h("input", { type: "date", name: "to", value: filter.get("to") });
  const show = (event) => {
    event.preventDefault();
    location.assign(address("./", { dag_id: dag.value, state: ended.value, from: from.value, to: to.value }));
  };
  return h("form", { class: "bar", onsubmit: show },
    h("label", {}, "Workflow", dag), h("label", {}, "State", ended),
    h("label", {}, "From", from), h("label", {}, "To", to),
    h("button", {}, "Show"), filter.size > 0 && h("a", { class: "button", href: "./" }, "All runs"));
}

async function section(dag, filter) {
  const one = filter.get("dag_id") === dag;
  const day = (name, later) => filter.get(name) && dayBegins(filter.get(name), later);
  try {
    const found = await airflow(address(`${dagPath(dag)}/dagRuns`, {
      limit: one ? 100 : CHART,
      order_by: "-id", // the newest first, that of a backfill too, and one that waits
      state: filter.get("state"),
      start_date_gte: day("from", 0),
      start_date_lt: day("to", 1),
    }));
    const runs = found.dag_runs;
    const reports = runs.length
      ? await get("api/reports", { dag_id: dag, run_id: runs.map((run) => run.dag_run_id) })
      : {};
    for (const run of runs) run.report = reports[run.dag_run_id];
    return { dag, runs: runs.length, element: card(dag, runs, one, found.total_entries) };
  } catch (error) {
    return { dag, runs: 1, element: h("section", { class: "card" }, h("h2", {}, dag), wrong(error)) };
  }
}

function card(dag, runs, one, count) {
  const shown = one ? runs : runs.slice(0, LATEST);
  const name = h("h2", { id: `dag-${dag}` }, one ? dag : h("a", { href: address("./", { dag_id: dag }) }, dag));
  const head = ["Run", "State", "Mode", ...STATES, "Pictures/s", "Bytes", "Duration"];
  return h("section", { class: "card", "aria-labelledby": `dag-${dag}` },
    h("div", { class: "head" }, name, h("span", { class: "quiet" }, `${number(count)} ${count === 1 ? "run" : "runs"}`)),
    chart(dag, runs.slice(0, CHART)),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Runs of ${dag}` },
      h("table", { class: "cards" },
        h("caption", { class: "unseen" }, `The latest runs of ${dag}`),
        h("thead", {}, h("tr", {}, head.map((text, column) =>
          h("th", { scope: "col", class: column > 2 ? "number" : null }, text)))),
        h("tbody", {}, shown.map((run) => row(dag, run))))),
    count > runs.length && one
      && h("p", { class: "quiet" }, `The latest ${runs.length} are shown: give dates to see others.`));
}

function row(dag, run) {
  const { report } = run;
  const cell = (label, text, more = "") =>
    h("td", { class: `number ${more}`, "data-label": label }, text);
  const count = (name) => {
    const value = report?.counts?.[name];
    return cell(name, number(value), value ? name : "zero");
  };
  const pictures = total(report?.counts);
  return h("tr", {},
    h("th", { scope: "row" }, h("a", { href: runAddress(dag, run.dag_run_id) }, runDate(run))),
    h("td", {}, state(run.state)),
    h("td", {}, report?.mode ?? "–"),
    STATES.map(count),
    cell("Pictures/s", run.duration && pictures ? number(pictures / run.duration) : "–"),
    cell("Bytes", bytes(report?.bytes)),
    cell("Duration", seconds(run.duration)));
}

// The last runs, oldest first: a bar's height is the number of pictures, by its logarithm.
function chart(dag, runs) {
  const heights = runs.map(({ report }) => Math.log10(1 + total(report?.counts)));
  const most = Math.max(...heights, 1);
  const bars = runs.map((run, position) => {
    const all = total(run.report?.counts);
    const x = (runs.length - 1 - position) * 10;
    let top = 40;
    const parts = STATES.map((name) => {
      const height = all ? (36 * (heights[position] / most) * run.report.counts[name]) / all : 0;
      top -= height;
      return svg("rect", { class: name, x, y: top, width: 8, height });
    });
    const told = all
      ? STATES.filter((name) => run.report.counts[name]).map((name) => `${run.report.counts[name]} ${name}`).join(", ")
      : "no picture on record";
    return svg("a", { href: runAddress(dag, run.dag_run_id), tabindex: "-1" },
      svg("title", {}, `${since(run)}: ${run.state}, ${told}`),
      svg("rect", { class: "ground", x, y: 0, width: 8, height: 40 }),
      all ? parts : svg("rect", { class: run.state, x, y: 38, width: 8, height: 2 }));
  });
  return svg("svg", { class: "chart", viewBox: "0 0 300 40", preserveAspectRatio: "none", "aria-hidden": "true" }, bars);
}

function rerun(may) {
  const open = async () => {
    const prefix = h("input", { name: "prefix", required: true, placeholder: "digital/2026/" });
    const mode = h("select", {}, h("option", { value: "dryrun" }, "dry run: only list them"),
      h("option", { value: "copy" }, "write notes: the next run of pyramid_tiff makes them"));
    const force = h("input", { type: "checkbox" });
    const yes = await confirmed("Pyramids of a prefix again",
      "Starts a run of pyramid_rerun for every picture below a prefix of the source bucket.",
      "Start the run",
      h("label", {}, "Prefix", prefix), h("label", {}, "Mode", mode),
      h("label", { class: "check" }, force, "Also those that are up to date"));
    if (!yes) return;
    const run = await triggered(RERUN, { prefix: prefix.value, mode: mode.value, force: force.checked });
    location.assign(runAddress(RERUN, run.dag_run_id));
  };
  return h("div", { class: "bar" }, action("Pyramids of a prefix again …", may.trigger, open));
}
