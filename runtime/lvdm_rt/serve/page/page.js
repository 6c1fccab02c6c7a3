// The page itself: a form that asks for videos, the stage that shows one, and those of before.

import { NeedsToken, ask, askJson, events, fileOf, letGo, setToken } from "./api.js";
import { Gallery } from "./gallery.js";
import { Preview, canPlayLive, playStream } from "./player.js";
import { described, settingsOf } from "./words.js";

const $ = (id) => document.getElementById(id);
const form = $("ask");
const fields = form.elements;
const player = $("player");
const preview = new Preview($("preview"));

let model = null;
let job = null; // the video on the stage
let watching = new AbortController();
let file = null; // address of what the player shows

const going = (video) => video.status === "queued" || video.status === "in_progress";
const path = (video) => `v1/videos/${video.id}`;

async function start() {
  const told = (await askJson("v1/models")).data[0];
  model = { name: told.id, ...told.lvdm_rt };
  const [width, height] = model.size.split("x").map(Number);
  document.documentElement.style.setProperty("--shape", width / height);
  $("model").textContent = `${model.name}, ${width} × ${height}`;
  for (const label of form.querySelectorAll("label.text")) label.hidden = !model.reads_text;
  for (const name of Object.keys(model.presets)) fields.preset.add(new Option(name, name));
  fields.num_inference_steps.placeholder = model.steps;
  fields.fps.placeholder = model.fps;
  fields.seconds.value = Math.min(model.frames, model.max_frames) / model.fps;
  tellLength();
  await gallery.load();
  const newest = gallery.newest();
  if (newest && going(newest)) show(newest);
}

// Runs what talks to the server, and says on the page what went wrong.
async function carefully(work) {
  $("problem").hidden = true;
  try {
    return await work();
  } catch (problem) {
    if (problem.name === "AbortError") return undefined;
    if (problem instanceof NeedsToken) {
      if (!$("door").open) $("door").showModal();
    } else {
      $("problem").textContent = problem.message;
      $("problem").hidden = false;
    }
    return undefined;
  }
}

const gallery = new Gallery($("gallery"), $("none"), $("more"), show, carefully);

function frames() {
  const rate = Number(fields.fps.value) || model.fps;
  return Math.max(1, Math.round(Number(fields.seconds.value) * rate));
}

function tellLength() {
  if (!model) return;
  const rate = Number(fields.fps.value) || model.fps;
  const most = model.max_frames / rate;
  const count = frames();
  fields.seconds.setCustomValidity(count > model.max_frames ? `at most ${most} seconds` : "");
  $("length").textContent = `${count} frames, ${rate} a second`;
}

function asked() {
  const told = { num_frames: frames() };
  for (const name of ["prompt", "negative_prompt", "preset"]) {
    const text = fields[name].value.trim();
    if (text) told[name] = text;
  }
  if (model.reads_text) told.prompt ??= "";
  for (const name of ["num_inference_steps", "guidance_scale", "fps"]) {
    if (fields[name].value) told[name] = Number(fields[name].value);
  }
  if (fields.exact.checked) told.exact = true;
  return told;
}

// JSON for most; a form where a film goes with it. A seed has more digits than a Number holds.
function request() {
  const told = asked();
  const seed = fields.seed.value.trim();
  const film = fields.input_reference.files[0];
  if (film) {
    const body = new FormData();
    for (const [name, value] of Object.entries(told)) body.append(name, value);
    if (seed) body.append("seed", seed);
    body.append("input_reference", film);
    return { method: "POST", body };
  }
  const json = JSON.stringify(told);
  const body = seed ? `${json.slice(0, -1)},"seed":${BigInt(seed)}}` : json;
  return { method: "POST", body, headers: { "Content-Type": "application/json" } };
}

async function make() {
  $("make").disabled = true;
  const made = await carefully(() => askJson("v1/videos", request()));
  $("make").disabled = false;
  if (!made) return;
  gallery.put(made);
  await show(made);
}

// Puts a video on the stage and stays with it while it is made.
async function show(video) {
  watching.abort();
  watching = new AbortController();
  const { signal } = watching;
  clearStage();
  render(video);
  $("screen").scrollIntoView({ block: "nearest" });
  if (!going(video)) return carefully(() => showFile(video, signal));
  return carefully(async () => {
    while (going(job) && !signal.aborted) {
      await follow(video, signal);
      if (!going(job)) break;
      await new Promise((resolve) => setTimeout(resolve, 1000)); // the connection was lost
      render(await askJson(path(video), { signal }));
    }
    if (!signal.aborted && player.hidden) await showFile(job, signal);
  });
}

async function follow(video, signal) {
  let live = null;
  for await (const { name, told } of events(`${path(video)}/events`, signal)) {
    if (name === "status") render(told);
    if (name === "preview" && player.hidden) await showPreview(told);
    if (name === "progress") renderProgress(told);
    if (name === "frames" && canPlayLive) live ??= carefully(() => playLive(video, signal));
  }
}

async function showPreview(told) {
  await preview.show(told);
  $("empty").hidden = true;
  $("preview").hidden = !player.hidden;
}

async function playLive(video, signal) {
  const answer = await ask(`${path(video)}/stream`, { signal });
  player.onloadeddata = showPlayer;
  player.loop = false;
  player.autoplay = true;
  await playStream(player, answer);
  player.loop = true;
}

async function showFile(video, signal) {
  if (video.status !== "completed") return;
  const address = await fileOf(`${path(video)}/content`);
  if (signal.aborted) return letGo(address);
  file = address;
  player.onloadeddata = showPlayer;
  player.loop = player.autoplay = true;
  player.src = address;
}

function showPlayer() {
  preview.stop();
  $("empty").hidden = $("preview").hidden = true;
  player.hidden = false;
}

function clearStage() {
  preview.stop();
  player.onloadeddata = null;
  player.pause();
  player.removeAttribute("src");
  player.load();
  letGo(file);
  file = null;
  player.hidden = $("preview").hidden = true;
  $("empty").hidden = false;
}

function render(video) {
  job = video;
  gallery.put(video);
  gallery.mark(video);
  const busy = going(video);
  $("status").textContent = described(video);
  $("progress").hidden = !busy;
  $("cancel").hidden = !busy;
  $("download").hidden = video.status !== "completed";
  $("remove").hidden = busy;
  $("reuse").hidden = false;
  $("facts").hidden = false;
  $("settings").replaceChildren(...settingsOf(video).flatMap(([name, value]) => pair(name, value)));
  if (!busy) $("numbers").textContent = "";
  if (!busy) return;
  if (video.status === "queued") $("progress").removeAttribute("value");
  else $("progress").value = video.progress;
}

function renderProgress(told) {
  $("progress").value = told.progress;
  job = { ...job, progress: told.progress };
  const frames = told.frames > 0 ? `, ${told.frames} of ${told.total_frames} frames` : "";
  $("numbers").textContent = `${told.progress} %${frames}`;
  $("progress").title = `step ${told.steps} of ${told.total_steps}`;
}

function pair(name, value) {
  const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  detail.textContent = value;
  return [term, detail];
}

async function save(video) {
  const address = await fileOf(`${path(video)}/content`);
  const link = document.createElement("a");
  link.href = address;
  link.download = `${video.model}-${video.seed}.mp4`;
  link.click();
  setTimeout(() => letGo(address), 60_000);
}

// The preset that leads to such settings; steps and guidance have fields of their own.
function presetOf(settings) {
  const own = ["steps", "guidance"];
  const leads = ([, told]) =>
    Object.entries(told).every(([name, value]) => own.includes(name) || settings[name] === value);
  return Object.entries(model.presets).find(leads)?.[0] ?? "";
}

function reuse(video) {
  const { settings } = video;
  fields.seconds.value = video.num_frames / video.fps;
  fields.seed.value = settings.seed;
  fields.fps.value = video.fps === model.fps ? "" : video.fps;
  fields.prompt.value = video.prompt ?? "";
  fields.negative_prompt.value = settings.negative_prompt ?? "";
  fields.preset.value = presetOf(settings);
  fields.num_inference_steps.value = settings.steps;
  fields.guidance_scale.value = 1 + (model.reads_text ? settings.text_guidance : settings.guidance);
  fields.exact.checked = settings.exact;
  tellLength();
  (model.reads_text ? fields.prompt : fields.seconds).focus();
}

async function drop(video) {
  await ask(path(video), { method: "DELETE" });
  if (going(video)) return; // an event says that it was cancelled
  watching.abort();
  gallery.remove(video);
  clearStage();
  for (const id of ["download", "remove", "reuse", "facts"]) $(id).hidden = true;
  $("status").textContent = "Deleted.";
  fields.seconds.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  make();
});
form.addEventListener("input", tellLength);
$("cancel").addEventListener("click", () => carefully(() => drop(job)));
$("remove").addEventListener("click", () => carefully(() => drop(job)));
$("download").addEventListener("click", () => carefully(() => save(job)));
$("reuse").addEventListener("click", () => reuse(job));
$("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken(event.target.elements.token.value.trim());
  $("door").close();
  await carefully(start);
  $("wrong").hidden = !$("door").open;
});
carefully(start);
