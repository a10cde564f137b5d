// The page: an input, and models that translate it as often as they can.
import { Pad } from "./pad.js";

const RUNTIME = "runtime/ort-wasm-simd-threaded.asyncify.wasm.gz";
const find = (selector, inside = document) => inside.querySelector(selector);
const wished = new URLSearchParams(location.search); // ?backend=wasm or webgpu, ?threads=1
const LABELS = { draw: "Draw", photo: "Photo", webcam: "Camera" };
const RECENT = 15, TIMING = 1000; // pictures of which the median is shown, and ms for which a start is timed

function say(text, isError = false) {
  find("#says").textContent = text;
  find("#says").classList.toggle("error", isError);
}

const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
function amount(value, units) {
  const step = units.findIndex(([size]) => value >= size);
  const [size, name] = units[step < 0 ? units.length - 1 : step];
  return `${short.format(value / size)} ${name}`.trim();
}
const COUNTS = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]], BYTES = [[1e6, "MB"], [1e3, "kB"], [1, "B"]];

// One model: its panel, its worker, and the newest picture that it has not seen yet
class Model {
  constructor(about, pad) {
    Object.assign(this, { about, pad, times: [], waiting: false, busy: true, until: 0, paused: false });
    this.panel = find("#model").content.cloneNode(true).firstElementChild;
    this.panel.id = about.name;
    this.canvas = find("canvas", this.panel);
    [this.canvas.height, this.canvas.width] = (about.output ?? [1, 1, 1, 1]).slice(2);
    find("h2", this.panel).textContent = about.title;
    this.tell("macs", amount(about.macs, COUNTS));
    this.tell("parameters", amount(about.parameters, COUNTS));
    this.tell("bytes", about.file ? amount(about.bytes, BYTES) : "not in this page");
    this.panel.classList.toggle("absent", !about.file);
    find(".pause", this.panel).onclick = (event) => this.pause(event.currentTarget);
    find(".save", this.panel).onclick = () => this.save();
    find("#stage").append(this.panel);
  }

  tell(name, text) {
    find(`.${name}`, this.panel).textContent = text;
  }

  // Load the model in a worker of its own and time it alone for a moment; on the first backend that can
  async start({ backends, threads, runtime }) {
    for (const backend of backends) {
      try {
        await this.open({ runtime, threads, backend });
        this.tell("on", `on ${named(backend, threads)}`);
        return;
      } catch (error) {
        this.worker.terminate();
        this.busy = true;
        if (backend === backends.at(-1)) throw error;
      }
    }
  }

  async open(settings) {
    this.worker = new Worker("worker.js", { type: "module" });
    const answer = () => new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.worker.onerror = (event) => this.reject(new Error(event.message || "its worker does not start"));
    this.worker.onmessage = ({ data }) => (data.error ? this.reject(new Error(data.error)) : this.show(data));
    this.worker.postMessage({ open: { ...this.about, ...settings } });
    await answer();
    this.translate();
    await answer();
    this.times.length = 0; // the first picture pays for what is made once
    this.until = performance.now() + TIMING;
    this.translate();
    await answer();
    this.reject = (error) => say(`The ${this.about.title} stopped: ${error.message}`, true);
  }

  // Newer pictures replace those that wait: what is shown is as fresh as the model is fast
  translate() {
    this.waiting = true;
    this.canvas.setAttribute("aria-busy", "true");
    if (this.busy || this.paused) return;
    [this.busy, this.waiting] = [true, false];
    const pixels = this.pad.pixels();
    this.worker.postMessage({ pixels }, [pixels.buffer]);
  }

  show({ pixels, ms }) {
    this.busy = false;
    if (!pixels) return this.resolve(); // it is open
    this.canvas.getContext("2d").putImageData(new ImageData(pixels, this.canvas.width, this.canvas.height), 0, 0);
    this.times.push(ms);
    if (this.times.length > RECENT) this.times.shift();
    const sorted = [...this.times].sort((a, b) => a - b), median = sorted[sorted.length >> 1];
    find(".speed strong", this.panel).textContent = short.format(1000 / median);
    this.tell("ms", `${short.format(median)} ms`);
    const timing = performance.now() < this.until;
    if (!timing) this.resolve();
    if (this.waiting || timing) this.translate();
    else this.canvas.setAttribute("aria-busy", "false");
  }

  pause(button) {
    this.paused = !this.paused;
    button.setAttribute("aria-pressed", this.paused);
    if (!this.paused) this.translate();
  }

  save() {
    const link = document.createElement("a");
    link.href = this.canvas.toDataURL("image/png");
    link.download = `${this.about.name}.png`;
    link.click();
  }
}

// Reload once under the service worker, if only its headers are missing; true if that is about to happen
async function isolates() {
  if (self.crossOriginIsolated || !navigator.serviceWorker || wished.get("threads") === "1") return false;
  if (sessionStorage.getItem("isolates")) return false; // it was tried
  sessionStorage.setItem("isolates", "tried");
  try {
    await navigator.serviceWorker.register("isolate.js");
    await navigator.serviceWorker.ready;
  } catch {
    return false; // works all the same, on one thread
  }
  location.reload();
  return true;
}

const named = (backend, threads) => backend === "webgpu" ? "WebGPU" : `WASM, ${threads} thread${threads > 1 ? "s" : ""}`;

// Where to run: the graphics card where there is a real one
async function settings() {
  const wish = wished.get("backend");
  const adapter = wish === "wasm" ? null : await navigator.gpu?.requestAdapter().catch(() => null);
  const real = adapter && (wish === "webgpu" || !adapter.info?.isFallbackAdapter);
  const share = Math.floor((navigator.hardwareConcurrency || 2) / 2); // there may be two models
  const threads = self.crossOriginIsolated ? Number(wished.get("threads")) || Math.min(4, Math.max(1, share)) : 1;
  return { backends: real ? ["webgpu", "wasm"] : ["wasm"], threads };
}

async function download(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} is not there (${response.status})`);
  return response;
}

// The runtime, whether or not the server has unpacked it already
async function runtime() {
  const packed = await (await download(RUNTIME)).blob();
  const [first, second] = new Uint8Array(await packed.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return packed.arrayBuffer();
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function picture(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

function connectDrawing(pad) {
  const tools = { pen: false, eraser: true };
  for (const [id, erases] of Object.entries(tools))
    find(`#${id}`).onclick = () => {
      pad.tool.erases = erases;
      for (const other of Object.keys(tools)) find(`#${other}`).setAttribute("aria-pressed", other === id);
    };
  find("#width").oninput = (event) => { pad.tool.width = Number(event.target.value); };
  pad.tool.width = Number(find("#width").value);
  find("#undo").onclick = () => pad.undo();
  find("#clear").onclick = () => pad.put(null);
}

function connectPhotos(pad) {
  const take = async (file) => {
    if (!file) return;
    const url = URL.createObjectURL(file);
    try {
      pad.put(await picture(url));
    } catch {
      say(`${file.name} is no picture that this browser reads`, true);
    } finally {
      URL.revokeObjectURL(url);
    }
  };
  find("#file").onchange = (event) => take(event.target.files[0]);
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}

// Gives a function that stops the camera
function connectCamera(pad) {
  const video = document.createElement("video"), button = find("#camera");
  Object.assign(video, { muted: true, playsInline: true });
  const stop = () => {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
    button.textContent = "Start the camera";
  };
  const next = () => {
    if (!video.srcObject) return;
    pad.refresh();
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(next);
    else requestAnimationFrame(next);
  };
  button.onclick = async () => {
    if (video.srcObject) return stop();
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
      await video.play();
    } catch (error) {
      stop();
      return say(`No camera: ${error.message}`, true);
    }
    button.textContent = "Stop the camera";
    pad.put(video, true);
    next();
  };
  return stop;
}

function connectModes(pad, inputs, stopCamera) {
  const choose = (mode) => {
    stopCamera();
    pad.draws = mode === "draw";
    pad.shown.classList.toggle("draws", pad.draws);
    for (const part of document.querySelectorAll("[data-mode]")) part.hidden = part.dataset.mode !== mode;
    for (const button of find("#modes").children) button.setAttribute("aria-checked", button.value === mode);
  };
  for (const mode of inputs) {
    const button = Object.assign(document.createElement("button"), { type: "button", value: mode });
    button.textContent = LABELS[mode];
    button.setAttribute("role", "radio");
    button.onclick = () => choose(mode);
    find("#modes").append(button);
  }
  find("#modes").hidden = inputs.length < 2;
  choose(inputs[0]);
}

function connectExamples(pad, examples) {
  for (const url of examples) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(Object.assign(new Image(), { src: url, alt: "example" }));
    button.onclick = async () => pad.put(await picture(url));
    find("#examples").append(button);
  }
}

async function main() {
  const page = await (await download("page.json")).json();
  document.title = find("h1").textContent = page.title;
  find("#credit").textContent = page.credit;
  if (await isolates()) return;
  const models = [];
  const pad = new Pad(find("#pad"), find("#sight"), page, () => { for (const model of models) model.translate(); });
  connectDrawing(pad);
  connectPhotos(pad);
  connectModes(pad, page.inputs, connectCamera(pad));
  connectExamples(pad, page.examples);
  for (const about of page.models) models.push(new Model(about, pad));
  pad.put(page.examples.length ? await picture(page.examples[0]) : null);
  pad.paint();
  const chosen = { ...(await settings()), runtime: await runtime() };
  for (const model of models.filter((one) => one.about.file)) {
    say(`Starting the ${model.about.title} ...`);
    await model.start(chosen);
  }
  say(page.invitation);
  document.body.dataset.ready = "yes";
}

main().catch((error) => say(`This page cannot run here: ${error.message || error}`, true));
