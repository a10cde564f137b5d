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

async function open({ runtime, backends, threads, ...given }) {
  model = given;
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = runtime;
  ort.env.wasm.numThreads = threads;
  const file = new URL(model.file, import.meta.url).href;
  session = await ort.InferenceSession.create(file, { executionProviders: backends });
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
