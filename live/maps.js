// What is computed from an answer, and how a map is drawn.

export function softmax(logits) {
  const top = Math.max(...logits)
  const powers = Array.from(logits, v => Math.exp(v - top))
  const sum = powers.reduce((a, b) => a + b)
  return powers.map(p => p / sum)
}

export const topClass = logits => logits.indexOf(Math.max(...logits))

// The 16 cells of class k, or of k minus `minus`. They average to the logit less its bias.
export function mapOf(answer, k, minus = null) {
  const cells = answer.maps.slice(k * 16, k * 16 + 16)
  return minus === null ? cells : cells.map((v, i) => v - answer.maps[minus * 16 + i])
}

export const mean = values => values.reduce((a, b) => a + b) / values.length

// 4x4 -> size x size, bilinear with half-pixel centres, as F.interpolate(align_corners=False).
export function upsample(cells, size) {
  const out = new Float32Array(size * size), scale = 4 / size
  const at = i => {
    const place = Math.min(3, Math.max(0, (i + 0.5) * scale - 0.5)), low = Math.floor(place)
    return [low, Math.min(3, low + 1), place - low]
  }
  const places = Array.from({ length: size }, (_, i) => at(i))
  places.forEach(([top, bottom, v], y) => places.forEach(([left, right, h], x) => {
    const row = r => cells[r * 4 + left] * (1 - h) + cells[r * 4 + right] * h
    out[y * size + x] = row(top) * (1 - v) + row(bottom) * v
  }))
  return out
}

// Three colours [r, g, b] from style.css: against, nothing, for.
export function readColours() {
  const style = getComputedStyle(document.documentElement)
  const bytes = text => text.match(/\w\w/g).map(part => parseInt(part, 16))
  const read = name => bytes(style.getPropertyValue(name))
  return [read('--against'), read('--nothing'), read('--for')]
}

// The colour of a value; +-limit is the strongest.
export function colour(value, limit, [against, nothing, speaksFor]) {
  const share = limit ? Math.min(1, Math.abs(value) / limit) : 0
  return nothing.map((n, i) => Math.round(n + ((value < 0 ? against : speaksFor)[i] - n) * share))
}

// Four by four squares; with numbers if `numbers`.
export function drawCells(canvas, cells, limit, colours, numbers = false) {
  const draw = canvas.getContext('2d'), side = canvas.width / 4
  if (numbers) {
    Object.assign(draw, { textAlign: 'center', textBaseline: 'middle' })
    draw.font = `${Math.round(side * 0.25)}px system-ui, sans-serif`
  }
  cells.forEach((value, i) => {
    const x = (i % 4) * side, y = Math.floor(i / 4) * side, rgb = colour(value, limit, colours)
    draw.fillStyle = `rgb(${rgb})`
    draw.fillRect(x, y, side, side)
    if (!numbers) return
    draw.fillStyle = rgb[0] * 0.3 + rgb[1] * 0.59 + rgb[2] * 0.11 > 140 ? '#16181c' : '#ffffff'
    draw.fillText(signed(value), x + side / 2, y + side / 2)
  })
}

// The picture in grey, with the smooth map over it.
export function drawOverlay(canvas, pixels, cells, limit) {
  const size = 128, smooth = upsample(cells, size), image = new ImageData(size, size)
  for (let i = 0; i < size * size; i++) {
    const from = ((Math.floor(i / size) >> 2) * 32 + (i % size >> 2)) * 4
    const grey = 40 + 0.7 * (pixels[from] * 0.3 + pixels[from + 1] * 0.59 + pixels[from + 2] * 0.11)
    const share = limit ? 0.75 * Math.min(1, Math.abs(smooth[i]) / limit) : 0
    const over = smooth[i] < 0 ? [40, 110, 230] : [255, 120, 0]
    for (let c = 0; c < 3; c++) image.data[i * 4 + c] = grey + (over[c] - grey) * share
    image.data[i * 4 + 3] = 255
  }
  canvas.width = canvas.height = size
  canvas.getContext('2d').putImageData(image, 0, 0)
}

// 1.2 or −0.4, with a true minus sign.
export const signed = (value, digits = 1) => {
  const text = Math.abs(value).toFixed(digits)
  return (value < 0 && Number(text) ? '−' : '') + text
}
