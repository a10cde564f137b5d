// One model in a thread of its own: RGBA pixels in, RGBA pixels and milliseconds out.
import * as ort from "./runtime/ort.webgpu.bundle.min.mjs";

let session, model;

// RGBA bytes, pixel after pixel, to (1, C, H, W) in [-1, 1]; of one channel, luma as Pillow's "L"
function toTensor(pixels) {
  const [, channels, height, width] = model.input, area = height * width, values = new Float32Array(channels * area);
  for (let i = 0; i < area; i++)
    if (channels === 1)
      values[i] = (0.299 * pixels[4 * i] + 0.587 * pixels[4 * i + 1] + 0.114 * pixels[4 * i + 2]) / 127.5 - 1;
    else for (let c = 0; c < 3; c++) values[c * area + i] = pixels[4 * i + c] / 127.5 - 1;
  return new ort.Tensor("float32", values, model.input);
}

function toPixels(values) {
  const [, channels, height, width] = model.output, [low, high] = model.range;
  const area = height * width, scale = 255 / (high - low);
  const pixels = new Uint8ClampedArray(4 * area).fill(255); // which rounds and clips
  for (let i = 0; i < area; i++)
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = (values[(channels === 1 ? 0 : c) * area + i] - low) * scale;
  return pixels;
}

const load = (file, backend) => ort.InferenceSession.create(new URL(file, import.meta.url).href, { executionProviders: [backend] });

// Values in [-1, 1] that are the same every time
function noise() {
  const pixels = new Uint8ClampedArray(4 * model.input[2] * model.input[3]);
  for (let i = 0, state = 1; i < pixels.length; i++) pixels[i] = (state = (state * 48271) % 2147483647) >> 23;
  return pixels;
}

// Some graphics cards, or the code for them, compute something else: they are compared with the CPU first
async function check(file) {
  const [found, expected] = [session, await load(file, "wasm")];
  const shown = (await run(noise())).pixels;
  session = expected;
  const right = (await run(noise())).pixels;
  session = found;
  await expected.release();
  const difference = shown.reduce((sum, value, i) => sum + Math.abs(value - right[i]), 0) / shown.length;
  if (!(difference < 1)) throw new Error(`it computes something else on the graphics card, by ${difference} grey levels`);
}

async function open({ runtime, backend, threads, ...given }) {
  model = given;
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = runtime;
  ort.env.wasm.numThreads = threads;
  session = await load(model.file, backend);
  if (backend !== "wasm") await check(model.file);
}

async function run(pixels) {
  const start = performance.now();
  const feed = { [session.inputNames[0]]: toTensor(pixels) };
  const output = (await session.run(feed))[session.outputNames[0]];
  const shown = toPixels(await output.getData());
  return { pixels: shown, ms: performance.now() - start };
}

self.onmessage = async ({ data }) => {
  try {
    if (data.open) {
      await open(data.open);
      self.postMessage({});
    } else {
      const result = await run(data.pixels);
      self.postMessage(result, [result.pixels.buffer]);
    }
  } catch (error) {
    self.postMessage({ error: String(error.message || error) });
  }
};
