// Shows what the read-only JSON API says. Everything is set as text, never as markup.
"use strict";

const PERIOD = 2000;
// A page with more rows than this helps nobody; the API has them all.
const ROWS = 500;

const byId = (id) => document.getElementById(id);

const number = (value) => (Math.round(value * 100) / 100).toString();

function row(cells) {
  const tr = document.createElement("tr");
  for (const cell of cells) {
    const td = document.createElement("td");
    td.textContent = String(cell);
    if (typeof cell === "number") td.className = "number";
    tr.append(td);
  }
  return tr;
}

function fill(id, rows) {
  const shown = rows.slice(0, ROWS);
  if (rows.length > ROWS) shown.push(row([`… and ${rows.length - ROWS} more`]));
  byId(id).replaceChildren(...shown);
}

function endpoints(list) {
  const counts = new Map();
  for (const { state } of list) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].map(([state, count]) => `${count} ${state}`).join(", ") || "none";
}

function lastStart(start) {
  if (!start) return "";
  const phases = Object.entries(start.phases).filter(([, seconds]) => seconds !== null);
  const total = phases.reduce((sum, [, seconds]) => sum + seconds, 0);
  const parts = phases.map(([name, seconds]) => `${name} ${Math.round(seconds * 1000)}`);
  return `${start.at}: ${Math.round(total * 1000)} ms (${parts.join(", ")})`;
}

function revision(r) {
  const { "1s": one, "6s": six, "60s": sixty } = r.average;
  const averages = [one, six, sixty].map(number).join(" / ");
  return row([
    `${r.namespace}/${r.name}`, r.inFlight, r.waiting, r.limit || "none", averages,
    endpoints(r.endpoints), r.coldStarts, lastStart(r.lastStart),
  ]);
}

function coldStart(s) {
  const outcome = [s.outcome ?? "under way", s.cause].filter(Boolean).join(": ");
  const phases = Object.entries(s.phases).filter(([, end]) => end !== null);
  const parts = phases.map(([name, end]) => `${name} ${number(end)}`);
  return row([`${s.namespace}/${s.revision}`, s.at, outcome, s.trigger, s.held, parts.join(", ")]);
}

function traffic(rule) {
  const shift = (t) => (t.warming ? ` (${t.asked}% once it is warm)` : "");
  const targets = rule.targets.map((t) => `${t.revision} ${t.percent}%${shift(t)}${t.tag ? ` [${t.tag}]` : ""}`);
  return `${rule.path || "/"} → ${targets.join(", ") || "answered here"}`;
}

function route(r) {
  const rules = r.rules.map(traffic).join("; ");
  return row([`${r.namespace}/${r.name}`, r.hosts.join(", "), r.visibility, rules, r.source]);
}

async function get(path) {
  const response = await fetch(path, { cache: "no-store" });
  return response.json();
}

function showReadiness({ ready, draining, version, problems }) {
  const line = byId("readiness");
  const state = draining ? "draining" : ready ? "ready" : "not ready";
  line.textContent = `${state}, configuration version ${version}`;
  line.className = ready ? "" : "bad";
  const box = byId("problems");
  box.hidden = problems.length === 0;
  box.textContent = "The last change was rejected:\n" + JSON.stringify(problems, null, 2);
}

async function refresh() {
  try {
    const paths = ["readyz", "api/revisions", "api/routes", "api/cold-starts"];
    const [readiness, revisions, routes, starts] = await Promise.all(paths.map(get));
    showReadiness(readiness);
    fill("revisions", revisions.map(revision));
    fill("starts", starts.map(coldStart));
    fill("routes", routes.map(route));
  } catch (error) {
    byId("readiness").textContent = `no answer: ${error.message}`;
    byId("readiness").className = "bad";
  }
  setTimeout(refresh, PERIOD);
}

byId("explain").addEventListener("submit", async (event) => {
  event.preventDefault();
  const box = byId("explanation");
  box.hidden = false;
  try {
    const query = new URLSearchParams(new FormData(event.target));
    box.textContent = JSON.stringify(await get(`api/explain?${query}`), null, 2);
  } catch (error) {
    box.textContent = `no answer: ${error.message}`;
  }
});

refresh();
