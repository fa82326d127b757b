import {
  STATES, absent, action, address, airflow, airflowLink, asked, begin, bytes, confirmed, dagPath, date, facts,
  folded, get, h, inline, json, main, number, pictureAddress, runAddress, runDate, runPath, seconds, share,
  state, thumb, total, triggered, wrong,
} from "./page.js";

const EVERY = 3000;
const LOGS = 5;
const OF_PICTURES = ["ItemsFailed", "RunFailed"];
const AT_WORK = ["queued", "running"];

const here = asked();
const dag = here.get("dag_id") ?? "";
const id = here.get("run_id") ?? "";
const where = { dag_id: dag, run_id: id };

begin(async () => {
  if (!dag || !id) throw new Error("the address names no run: choose one from the list of runs");
  const [ran, run] = await Promise.all([
    airflow(runPath(dag, id)).catch((error) => {
      if (error.status !== 404) throw error;
      return null; // removed from Airflow; its records may be there still
    }),
    get("api/run", where),
  ]);
  document.title = `${dag} ${id}`;
  main.querySelector("h1").replaceWith(head(ran, run));
  const live = AT_WORK.includes(ran?.state);
  // Of a run that never came to its report, what is on record all the same.
  const recorded = live || !run.report || run.stale;
  if (live) main.append(progress(run));
  if (batchOf(run)) { // a task's own page
    main.append(await rows(run, recorded), h("p", {}, h("a", { href: runAddress(dag, id) }, "The whole run")));
    return;
  }
  if (ran?.state === "failed") main.append(await failures());
  if (run.report && !live) main.append(result(ran, run));
  if (run.plan || run.report) main.append(actions(ran, run, live), await rows(run, recorded));
  else if (ran?.state !== "failed") main.append(nothing(ran, live));
  if (run.sheets.length) main.append(sheets(run));
  for (const [part, report] of Object.entries(run.parts)) main.append(partCard(part, report));
  if (run.plan) main.append(plan(run), recipe(run));
  if (run.files.length) main.append(files(run));
});

function head(ran, run) {
  const at = `dags/${encodeURIComponent(dag)}/runs/${encodeURIComponent(id)}`;
  return h("header", {},
    h("nav", { "aria-label": "Way" }, h("a", { href: "./" }, "Images"), " / ",
      h("a", { href: address("./", { dag_id: dag }) }, dag)),
    h("div", { class: "head" }, h("h1", {}, id), ran ? state(ran.state) : h("span", { class: "quiet" }, "no longer in Airflow"),
      run.plan && h("span", { class: "quiet" }, `mode ${run.plan.mode}`)),
    h("p", { class: "quiet" }, ran && [runDate(ran), `, ${seconds(ran.duration)}, `],
      ran && airflowLink(at, "this run in Airflow")));
}

function nothing(ran, live) {
  const why = live
    ? "The run is planning. What it finds is shown here when it is done."
    : "No pictures are on record of this run: it planned nothing, or is of a DAG that is none of Imageflows.";
  return h("div", { class: "note" }, h("p", {}, ran ? why : "Nothing is on record of this run, and Airflow does not know it."));
}

const taskName = ({ task_id, map_index, rendered_map_index }) =>
  (map_index < 0 ? task_id : `${task_id} ${rendered_map_index ?? map_index}`);

// What stopped tasks, of their logs. Pictures that failed are told one by one below.
async function failures() {
  const path = `${runPath(dag, id)}/taskInstances`;
  const found = await airflow(address(path, { state: "failed", order_by: "end_date", limit: LOGS })).catch(() => ({ task_instances: [] }));
  const told = await Promise.all(found.task_instances.map(async (task) => {
    const of = task.map_index < 0 ? "" : `?map_index=${task.map_index}`;
    const log = await airflow(`${path}/${encodeURIComponent(task.task_id)}/logs/${task.try_number}${of}`).catch(() => ({ content: [] }));
    const last = [].concat(log.content).findLast((entry) => entry.error_detail?.length)?.error_detail[0];
    return { task, last };
  }));
  const others = told.filter(({ last }) => !OF_PICTURES.includes(last?.exc_type));
  if (!others.length) return h("div", {});
  return h("div", { class: "note wrong" }, others.map(({ task, last }) => {
    const mapped = task.map_index < 0 ? "" : `/mapped/${task.map_index}`;
    return h("div", {},
      h("p", {}, h("strong", {}, `${taskName(task)} failed. `), airflowLink(`dags/${encodeURIComponent(dag)}/runs/${encodeURIComponent(id)}/tasks/${encodeURIComponent(task.task_id)}${mapped}`, "Its log")),
      last && h("p", { class: "lines" }, last.exc_value || last.exc_type));
  }));
}

function progress(run) {
  let known = 0;
  const bar = h("progress", { "aria-label": "Pictures that have an outcome" });
  const said = h("p", { role: "status" }, "The run is at work.");
  const box = h("section", { class: "card" }, said, bar, h("div", {}));
  const ask = async () => {
    try {
      const [ran, counts] = await Promise.all([
        airflow(runPath(dag, id)),
        get("api/progress", where),
      ]);
      if (!AT_WORK.includes(ran.state) || (counts && !run.plan)) {
        location.reload();
        return;
      }
      if (counts) await show(counts);
    } catch (error) {
      said.textContent = error.message;
    }
    setTimeout(ask, EVERY);
  };
  const show = async (counts) => {
    const ended = total(counts);
    bar.max = Math.max(counts.planned, 1);
    bar.value = ended;
    const each = STATES.filter((name) => counts[name]).map((name) => `${number(counts[name])} ${name}`);
    said.textContent = `At work: ${number(ended)} of ${number(counts.planned)} pictures${each.length ? ` (${each.join(", ")})` : ""}.`;
    box.lastChild.replaceWith(share(counts));
    const list = document.getElementById("rows");
    const looking = list?.contains(document.activeElement) || list?.querySelector("details[open]");
    if (list && ended !== known && !here.get("cursor") && !looking) list.replaceWith(await rows(run, true));
    known = ended;
  };
  ask();
  return box;
}

function result(ran, run) {
  const { report } = run;
  const dryrun = report.mode === "dryrun";
  const pictures = total(report.counts);
  const missing = report.missing + report.stray;
  const first = report.problems.map((each) =>
    h("p", {}, h("a", { href: pictureAddress(dag, id, each.key) }, each.key), ` `, state(each.state), ` ${each.reason}`));
  const left = report.counts.failed + report.counts.quarantined + report.missing - first.length;
  return h("section", { class: "card", "aria-label": "Result" },
    dryrun
      ? h("p", {}, "A dry run: it planned, and wrote nothing.")
      : share(report.counts, (name) => runAddress(dag, id, { state: name })),
    inline(
      ["Planned", number(report.planned)],
      ["Written", dryrun ? null : bytes(report.bytes)],
      ["Speed", pictures && ran?.duration ? `${number(pictures / ran.duration)} pictures/s` : null],
      ["Work", dryrun ? null : `${seconds(report.seconds)}, of all tasks together`],
      ...Object.entries(report.results ?? {}).map(([name, count]) => [name, number(count)]),
      ["Remarks", report.remarks ? number(report.remarks) : null],
      ["Reported", date(report.at)]),
    run.stale && note("This report is of an earlier plan of this run: it was planned again since.", true),
    missing > 0 && note(`${number(report.missing)} planned pictures have no outcome, and ${number(report.stray)} outcomes were never planned. Clear what failed, and the report is made anew.`, true),
    first.length > 0 && h("div", { class: "note wrong" }, first, left > 0 && h("p", {}, `… and ${number(left)} more.`)));
}

const note = (text, bad) => h("div", { class: `note ${bad ? "wrong" : ""}` }, h("p", {}, text));

function actions(ran, run, live) {
  const failed = run.report ? run.report.counts.failed + run.report.counts.quarantined + run.report.missing : 0;
  const bar = h("div", { class: "bar" });
  if (ran && ran.state === "failed") bar.append(action("Retry what failed …", run.may.retry, () => retry(run.whole)));
  if (run.again && failed && !live) bar.append(action("Run the failed ones again …", run.may.trigger, () => again(run.again)));
  if (run.plan?.approve && !live) {
    const refused = run.plan.summary?.refused?.length;
    bar.append(action("Approve this plan …", run.may.trigger && !refused, () => approve(ran, run), refused ? "The plan is refused: see below why." : undefined));
  }
  return bar;
}

// What a run unpacked is gone when it ended: such a run is done again as a whole.
async function retry(whole) {
  const asking = { dag_run_id: id, only_failed: !whole, dry_run: true };
  const path = `${dagPath(dag)}/clearTaskInstances`;
  const found = (await airflow(path, asking)).task_instances;
  if (!found.length) throw new Error("Airflow has nothing to clear in this run: no task of it failed");
  const names = found.slice(0, 10).map(taskName);
  const yes = await confirmed("Retry what failed",
    [whole && "What this run unpacked is gone, so that all of it has to run again.",
      `${found.length} task instances are cleared and run again: ${names.join(", ")}${found.length > 10 ? ", …" : ""}.`,
      "Pictures that are done are not done again. What was quarantined stays so: mend the picture, and run it again."],
    "Retry");
  if (!yes) return;
  await airflow(path, { ...asking, dry_run: false });
  location.assign(runAddress(dag, id));
}

async function again({ dag_id, conf }) {
  const yes = await confirmed("Run the failed ones again",
    `Starts a new run of ${dag_id} for exactly the pictures that failed, were quarantined, or have no outcome.`,
    "Start the run", h("details", {}, h("summary", {}, "Parameters"), json(conf)));
  if (!yes) return;
  const run = await triggered(dag_id, conf);
  location.assign(runAddress(dag_id, run.dag_run_id));
}

async function approve(ran, run) {
  const { plan } = run;
  const kept = Object.entries(ran?.conf ?? {}).filter(([name]) => !plan.selecting.includes(name));
  const conf = {
    ...Object.fromEntries(kept),
    mode: plan.removals ? "sync" : "copy",
    ...(plan.removals ? { delete: true } : {}),
    approved_plan: plan.approve,
  };
  const yes = await confirmed("Approve this plan",
    [`Starts a run of ${dag} in mode ${conf.mode} that does exactly this: ${number(plan.planned - plan.removals)} pictures are written and ${number(plan.removals)} deleted.`,
      "What changed in a bucket since the plan was made is left as it is, and said so."],
    plan.removals ? `Approve, and delete ${number(plan.removals)}` : "Approve",
    facts(["Fingerprint", h("code", {}, plan.fingerprint)]));
  if (!yes) return;
  const started = await triggered(dag, conf);
  location.assign(runAddress(dag, started.dag_run_id));
}

const LISTS = { outcomes: "Pictures", failed: "To run again", manifest: "Planned", removals: "Deletions", findings: "Findings" };

async function rows(run, live) {
  const filter = Object.fromEntries(["list", "state", "reason", "key", "cursor", "part"].map((name) => [name, here.get(name) ?? ""]));
  const batch = batchOf(run);
  const dryrun = run.plan?.mode === "dryrun";
  filter.list ||= dryrun ? "manifest" : "outcomes";
  filter.part ||= here.get("task_id") === "verify" && run.parts.verify ? "verify" : "";
  const shown = { ...where, ...filter, batch, live: live ? "true" : "" };
  const box = h("section", { id: "rows", class: "card", "aria-labelledby": "rows-title" });
  box.append(h("h2", { id: "rows-title" }, batch ? `Pictures of this task (batch ${batch})` : LISTS[filter.list] ?? filter.list));
  box.append(form(run, filter, dryrun, filter.list !== "outcomes" || (!live && !batch)));
  try {
    const page = await get("api/rows", shown);
    box.append(table(page, filter));
    box.append(pager(page, filter, live));
  } catch (error) {
    if (error.status !== 404) box.append(wrong(error));
    else box.append(h("p", {}, live ? "No picture has an outcome yet." : "There is no such list of this run."));
  }
  return box;
}

// A mapped task's own page shows its batch.
function batchOf(run) {
  const index = Number(here.get("map_index") ?? -1);
  const batches = here.get("task_id") === "remove" ? run.plan?.removal_batches : run.plan?.batches;
  return (Number.isInteger(index) && index >= 0 && batches?.[index]) || "";
}

function form(run, filter, dryrun, whole) {
  const counts = (filter.part ? run.parts[filter.part] : run.report)?.counts;
  const field = (name, label) => {
    const input = h("input", { name, value: filter[name], type: "search" });
    return [input, h("label", {}, label, input)];
  };
  const [key, keyLabel] = field("key", "Name has");
  const [reason, reasonLabel] = field("reason", "Reason has");
  const chosen = h("select", { name: "state" },
    h("option", { value: "" }, "any"),
    STATES.map((name) => h("option", { value: name, selected: filter.state === name },
      counts && !dryrun ? `${name} (${number(counts[name])})` : name)));
  const lists = ["outcomes", "failed", "manifest"].filter((name) => !(dryrun && name !== "manifest"));
  if (run.plan?.removals) lists.push("removals");
  if (run.files.includes("findings.jsonl")) lists.push("findings");
  const list = h("select", { name: "list" }, lists.map((name) =>
    h("option", { value: name, selected: filter.list === name }, LISTS[name])));
  const ofOutcomes = filter.list === "outcomes";
  const to = () => runAddress(dag, id, { ...filter, ...kept(), cursor: "", key: key.value, reason: ofOutcomes ? reason.value : "", state: ofOutcomes ? chosen.value : "", list: list.value });
  const show = (event) => {
    event.preventDefault();
    location.assign(to());
  };
  const file = (format) => address("api/download", { ...where, list: filter.list, part: filter.part, state: filter.state, reason: filter.reason, key: filter.key, format });
  return h("form", { class: "bar", onsubmit: show, role: "search" },
    h("label", {}, "List", list), keyLabel, ofOutcomes && [h("label", {}, "State", chosen), reasonLabel],
    h("button", {}, "Show"),
    whole && [h("a", { class: "button", href: file("csv"), download: true }, "CSV"),
      h("a", { class: "button", href: file("jsonl"), download: true }, "JSON Lines")]);
}

const kept = () => ({ task_id: here.get("task_id"), map_index: here.get("map_index") });

function table(page, filter) {
  if (!page.rows.length) {
    const filtered = filter.state || filter.reason || filter.key;
    const none = filtered ? "Nothing is like that. Change the filter." : "There is nothing in this list.";
    return h("p", {}, page.next ? "Nothing like that so far." : none);
  }
  const outcomes = page.rows[0].state !== undefined;
  const head = outcomes ? ["Source and result", "Picture", "State", "Time"] : ["Now there", "Picture", "Action"];
  const body = page.rows.map((row) => (outcomes ? outcomeRow(row, filter) : itemRow(row)));
  return h("table", { class: "cards rows" },
    h("caption", { class: "unseen" }, "Pictures, one a row"),
    h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, body));
}

function outcomeRow(row, filter) {
  const href = pictureAddress(dag, id, row.key, filter.part);
  return h("tr", {},
    thumbs(row, filter.part),
    h("td", {}, h("a", { class: "key", href }, row.key), row.reason && h("div", {}, row.reason), details(row.detail)),
    h("td", { "data-label": "State" }, state(row.state)),
    h("td", { "data-label": "Time" }, seconds(row.seconds), h("div", { class: "quiet" }, date(row.at))));
}

function itemRow(row) {
  const { key, roles, ...rest } = row;
  return h("tr", {},
    thumbs(row, ""),
    h("td", {}, h("a", { class: "key", href: pictureAddress(dag, id, key) }, key), details(rest)),
    h("td", { "data-label": "Action" }, row.action ?? "–"));
}

const thumbs = ({ key, roles = [] }, part) => h("td", {}, h("div", { class: "thumbs" }, roles.map((role) =>
  thumb({ ...where, key, part }, role, `${role} of ${key}`, pictureAddress(dag, id, key, part)))));

const details = (detail) => detail && Object.keys(detail).length > 0
  && h("details", {}, h("summary", {}, "Details"), json(detail));

function pager(page, filter, live) {
  const more = (cursor) => runAddress(dag, id, { ...filter, ...kept(), cursor });
  const looked = live ? "" : ` (${bytes(page.looked_at)} looked through)`;
  return h("nav", { class: "bar", "aria-label": "Pages" },
    filter.cursor && h("a", { class: "button", href: more("") }, "First page"),
    page.next && h("a", { class: "button", href: more(page.next) }, page.rows.length ? "Next page" : "Look further"),
    h("span", { class: "quiet" }, `${number(page.rows.length)} shown${page.next ? looked : ", to the end"}`));
}

function plan(run) {
  const { plan: planned } = run;
  const summary = Object.entries(planned.summary ?? {});
  const counted = summary.filter(([, value]) => value && typeof value === "object" && "count" in value);
  const sync = planned.sync;
  const box = folded(`Plan: ${number(planned.planned)} planned`,
    planned.summary?.refused?.length > 0 && h("div", { class: "note wrong" }, h("p", {}, h("strong", {}, "Refused. Nothing is written until this is mended:")), planned.summary.refused.map((reason) => h("p", {}, reason))),
    facts(["Planned at", date(planned.at)],
      ["Source", sync?.source?.url], ["Destination", sync?.destination?.url], ["Replaced and deleted go to", sync ? sync.trash?.url ?? "nowhere: they are lost" : null],
      ["Deletions", sync ? number(planned.removals) : null],
      ["Fingerprint", planned.fingerprint && h("code", {}, planned.fingerprint)]),
    counted.length > 0 && h("table", {},
      h("caption", { class: "unseen" }, "What the comparison found"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Found"), h("th", { scope: "col", class: "number" }, "Pictures"), h("th", { scope: "col", class: "number" }, "Bytes"))),
      h("tbody", {}, counted.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, number(value.count)), h("td", { class: "number" }, bytes(value.bytes)))))),
    !sync && planned.notes?.length > 0 && h("ul", {}, planned.notes.map((text) => h("li", {}, text))),
    planned.removals > 0 && h("p", {}, h("a", { href: runAddress(dag, id, { list: "removals" }) }, planned.removals === 1 ? "The deletion" : `The ${number(planned.removals)} deletions`)),
    planned.first_remarks.length > 0 && h("details", {}, h("summary", {}, `${number(planned.remarks)} remarks`),
      h("ul", {}, planned.first_remarks.map(({ key, remark }) => h("li", {}, `${key}: ${remark}`)))));
  box.open = planned.mode === "dryrun";
  return box;
}

function recipe(run) {
  const set = Object.entries(run.plan.params).filter(([, value]) => value !== null && value !== "");
  return folded("Recipe and parameters", facts(...set.map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : String(value)])));
}

function files(run) {
  return folded("Files", h("p", { class: "quiet" }, "As the older systems wrote them, and the run's own records."),
    h("ul", {}, run.files.map((name) => h("li", {}, h("a", { href: address("api/file", { ...where, name }), download: true }, name)))));
}

function sheets(run) {
  const box = folded(`Contact sheet: ${run.sheets.length} sheets`);
  box.addEventListener("toggle", () => {
    if (box.open && box.children.length === 1) box.append(...run.sheets.map((name) => sheet(name)));
  });
  return box;
}

function sheet(name) {
  const source = address("api/sheet", { ...where, name });
  const image = h("img", { src: source, alt: `Contact sheet ${name}`, loading: "lazy" });
  image.addEventListener("error", () => absent(image, source));
  return h("figure", { class: "sheet" }, h("figcaption", {}, name.replace(/\.jpg$/, "")), image);
}

function partCard(part, report) {
  return h("section", { class: "card", "aria-label": part },
    h("div", { class: "head" }, h("h2", {}, part), h("a", { href: runAddress(dag, id, { part }) }, "its pictures")),
    share(report.counts, (name) => runAddress(dag, id, { part, state: name })));
}
