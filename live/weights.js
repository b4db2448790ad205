// From whole numbers, as they are downloaded, to the float32 weights that network.onnx reads.

// Each output channel has a step of its own.
function multiply(numbers, steps, weights) {
  const width = numbers.length / steps.length
  for (let o = 0, i = 0; o < steps.length; o++) {
    for (const end = i + width; i < end; i++) weights[i] = numbers[i] * steps[o]
  }
}

// Every nine weights -> one of those that multiply a tile.
function combine(weights, [a, b, c, d, e, f, g, h, k], out) {
  for (let i = 0, to = 0; to < out.length; i += 9, to++) {
    out[to] = a * weights[i] + b * weights[i + 1] + c * weights[i + 2]
      + d * weights[i + 3] + e * weights[i + 4] + f * weights[i + 5]
      + g * weights[i + 6] + h * weights[i + 7] + k * weights[i + 8]
  }
}

// The weights of all convolutions, one after the other; `layout` is what export_parts says.
export function expand(bytes, { floats, layers, kernels }) {
  const all = new Float32Array(floats)
  let at = 0, to = 0
  for (const { outputs, inputs, area, tile } of layers) {
    const size = outputs * inputs * area
    const steps = new Float32Array(bytes.slice(at, at += 4 * outputs).buffer)
    const numbers = new Int8Array(bytes.buffer, at, size)
    at += size
    const weights = tile ? new Float32Array(size) : all.subarray(to, to += size)
    multiply(numbers, steps, weights)
    for (const kernel of kernels[tile] ?? []) {
      combine(weights, kernel, all.subarray(to, to += size / 9))
    }
  }
  return all
}
