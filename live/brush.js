// What is hidden, and with what.

// Every pixel replaced by the mean of its surroundings, three times: the object melts away.
export function blur(pixels, radius = 5) {
  let from = Float32Array.from(pixels)
  for (let round = 0; round < 3; round++) {
    const to = new Float32Array(from)
    for (let y = 0; y < 32; y++) for (let x = 0; x < 32; x++) {
      const sum = [0, 0, 0]
      let count = 0
      const [top, left] = [Math.max(0, y - radius), Math.max(0, x - radius)]
      for (let v = top; v <= Math.min(31, y + radius); v++) {
        for (let h = left; h <= Math.min(31, x + radius); h++, count++) {
          for (let c = 0; c < 3; c++) sum[c] += from[(v * 32 + h) * 4 + c]
        }
      }
      for (let c = 0; c < 3; c++) to[(y * 32 + x) * 4 + c] = sum[c] / count
    }
    from = to
  }
  return Uint8ClampedArray.from(from)
}

export class Brush {
  constructor() { this.clear() }

  clear() {
    this.mask = new Uint8Array(1024) // 1 where a pixel is hidden
    this.past = []
  }

  get empty() { return !this.mask.includes(1) }

  // Call before a stroke: `undo` comes back to here.
  begin() {
    this.past.push(this.mask.slice())
    if (this.past.length > 100) this.past.shift()
  }

  undo() { if (this.past.length) this.mask = this.past.pop() }

  // A round stamp, `width` pixels wide, at (x, y) in pixels from the top left.
  // True if it changed anything.
  stamp(x, y, width, value = 1) {
    let changed = false
    for (let row = 0; row < 32; row++) for (let column = 0; column < 32; column++) {
      const i = row * 32 + column
      const outside = Math.hypot(column + 0.5 - x, row + 0.5 - y) > width / 2
      if (outside || this.mask[i] === value) continue
      this.mask[i] = value
      changed = true
    }
    return changed
  }

  // Stamps along a line, one each half pixel; true if they changed anything.
  line([x0, y0], [x1, y1], width, value = 1) {
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)))
    let changed = false
    for (let i = 0; i <= steps; i++) {
      const [x, y] = [x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps]
      changed = this.stamp(x, y, width, value) || changed
    }
    return changed
  }

  // The pixels with what is hidden replaced by `cover`, pixel for pixel.
  hide(pixels, cover) {
    const out = Uint8ClampedArray.from(pixels)
    this.mask.forEach((hidden, i) => {
      if (hidden) for (let c = 0; c < 3; c++) out[i * 4 + c] = cover[i * 4 + c]
    })
    return out
  }
}
