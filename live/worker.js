// The network lives here, beside the page, so that painting never waits for it.
// Messages in: {start: facts}, then {id, pixels}.
// Messages out: {bytes}, {ready}, {id, logits, maps, ms}, {id, error}.
import * as ort from './runtime/ort.wasm.bundle.min.mjs'
import { expand } from './weights.js'

let session, facts

// The bytes of a gzip file; `count` hears how many have come.
async function download({ url }, count) {
  const response = await fetch(url)
  if (!response.ok) throw new Error(`${url.split('?')[0]} answered ${response.status}`)
  const reader = response.body.getReader(), chunks = []
  for (let step = await reader.read(); !step.done; step = await reader.read()) {
    chunks.push(step.value)
    count(step.value.length)
  }
  const file = new Blob(chunks)
  const [a, b] = new Uint8Array(await file.slice(0, 2).arrayBuffer())
  const gzip = a === 0x1f && b === 0x8b // some servers unpack it
  const plain = gzip ? file.stream().pipeThrough(new DecompressionStream('gzip')) : file
  return new Uint8Array(await new Response(plain).arrayBuffer())
}

async function start(given) {
  facts = given
  let bytes = 0
  const count = more => postMessage({ bytes: bytes += more })
  const parts = [facts.network, facts.weights, facts.runtime].map(part => download(part, count))
  const [network, packed, runtime] = await Promise.all(parts)
  ort.env.wasm.wasmBinary = runtime
  ort.env.wasm.numThreads = 1 // more threads need headers that a plain server does not send
  const weights = expand(packed, facts.layout)
  session = await ort.InferenceSession.create(network, {
    executionProviders: ['wasm'],
    externalData: [{ path: 'weights.bin', data: new Uint8Array(weights.buffer) }],
    graphOptimizationLevel: 'disabled', // there is nothing left to do, and looking takes time
  })
  postMessage({ ready: true })
}

// RGB or RGBA bytes, row by row -> normalised float32 (1, 3, 32, 32).
function normalise(pixels) {
  const x = new Float32Array(3 * 1024), step = pixels.length / 1024
  for (let c = 0; c < 3; c++) for (let i = 0; i < 1024; i++) {
    x[c * 1024 + i] = (pixels[i * step + c] / 255 - facts.mean[c]) / facts.std[c]
  }
  return new ort.Tensor('float32', x, [1, 3, 32, 32])
}

// fc.weight @ features: one map of 16 cells per class, (10, 4, 4).
function classMaps(features) {
  const maps = new Float32Array(160), { weight } = facts.head
  for (let k = 0; k < 10; k++) for (let d = 0; d < 512; d++) for (let i = 0; i < 16; i++) {
    maps[k * 16 + i] += weight[k * 512 + d] * features[d * 16 + i]
  }
  return maps
}

async function answer({ id, pixels }) {
  const begin = performance.now()
  const out = await session.run({ image: normalise(pixels) })
  const maps = classMaps(out.features.data)
  const logits = Float32Array.from(out.logits.data)
  postMessage({ id, logits, maps, ms: performance.now() - begin })
}

let last = Promise.resolve() // one message after the other
onmessage = ({ data }) => {
  last = last.then(() => data.start ? start(data.start) : answer(data))
    .catch(error => postMessage({ id: data.id, error: error.message || String(error) }))
}
