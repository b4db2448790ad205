// The page's side of worker.js: start it once, then ask it for answers.
import facts from './facts.js'

// The smallest WebAssembly module with a SIMD instruction.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0,
  65, 0, 253, 15, 253, 98, 11]

// Why this browser cannot run the network, or ''.
export function whyNot() {
  if (typeof WebAssembly !== 'object') return 'WebAssembly is switched off or missing'
  if (!WebAssembly.validate(new Uint8Array(SIMD))) return 'its WebAssembly lacks SIMD'
  if (typeof Worker !== 'function') return 'workers are missing'
  if (typeof DecompressionStream !== 'function') return 'it cannot unpack gzip'
  return ''
}

export class Network {
  constructor() { this.state = 'off' } // off, loading, ready

  // Resolves once the network is ready; `progress` hears the share that has come, 0 to 1.
  start(progress) {
    if (this.state === 'off') {
      this.state = 'loading'
      this.started = this.load(progress).then(() => { this.state = 'ready' }, error => {
        this.worker?.terminate()
        this.state = 'off'
        throw error
      })
    }
    return this.started
  }

  load(progress) {
    const total = facts.network.bytes + facts.weights.bytes + facts.runtime.bytes
    const worker = this.worker = new Worker('./worker.js', { type: 'module' })
    this.waiting = new Map()
    return new Promise((resolve, reject) => {
      worker.onerror = event => reject(new Error(event.message || 'the worker did not start'))
      worker.onmessage = ({ data }) => {
        if (data.bytes) progress(data.bytes / total)
        else if (data.ready) resolve()
        else if (data.id === undefined) reject(new Error(data.error))
        else this.settle(data)
      }
      worker.postMessage({ start: facts })
    })
  }

  settle(data) {
    const [resolve, reject] = this.waiting.get(data.id)
    this.waiting.delete(data.id)
    if (data.error) reject(new Error(data.error))
    else resolve(data)
  }

  // 32x32 RGB or RGBA bytes -> {logits (10), maps (10 * 16), ms}, in the order of asking.
  run(pixels) {
    const id = this.asked = (this.asked ?? 0) + 1
    return new Promise((resolve, reject) => {
      this.waiting.set(id, [resolve, reject])
      this.worker.postMessage({ id, pixels })
    })
  }
}
