// From a file to 32x32 pixels: nothing leaves the browser.

const SIDE = 512 // the crop is drawn at this width, then averaged in blocks of 16x16

export function canvasOf(width, height) {
  return Object.assign(document.createElement('canvas'), { width, height })
}

const contextOf = canvas => canvas.getContext('2d', { willReadFrequently: true })

// The browser's own decoder; it turns a photograph as its EXIF says.
async function decode(file) {
  const url = URL.createObjectURL(file), image = new Image()
  try {
    image.src = url
    await image.decode()
    return image
  } catch {
    throw new Error(`${file.name || 'This'} is no picture that this browser can read, `
      + 'or too large for it. Try a JPEG, PNG or WebP file.')
  } finally { URL.revokeObjectURL(url) }
}

// The middle square of an image, on white where it is transparent.
function crop(image, name) {
  const [width, height] = [image.naturalWidth || SIDE, image.naturalHeight || SIDE]
  const side = Math.min(width, height), canvas = canvasOf(SIDE, SIDE), draw = contextOf(canvas)
  draw.imageSmoothingEnabled = side > SIDE // a small picture keeps its pixels
  draw.imageSmoothingQuality = 'high'
  draw.drawImage(image, (width - side) / 2, (height - side) / 2, side, side, 0, 0, SIDE, SIDE)
  const { data } = draw.getImageData(0, 0, SIDE, SIDE)
  if (!data.some((value, i) => i % 4 === 3 && value)) {
    throw new Error(`Nothing can be seen in ${name}: it is transparent everywhere, `
      + 'or too large for this browser.')
  }
  draw.globalCompositeOperation = 'destination-over'
  draw.fillStyle = '#ffffff'
  draw.fillRect(0, 0, SIDE, SIDE)
  return { canvas, width, height }
}

// Means over blocks: the same in every browser.
export function shrink(canvas, size = 32) {
  const { data } = contextOf(canvas).getImageData(0, 0, canvas.width, canvas.width)
  const block = canvas.width / size, pixels = new Uint8ClampedArray(size * size * 4)
  for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) for (let c = 0; c < 4; c++) {
    let sum = 0
    for (let v = 0; v < block; v++) for (let h = 0; h < block; h++) {
      sum += data[((y * block + v) * canvas.width + x * block + h) * 4 + c]
    }
    pixels[(y * size + x) * 4 + c] = Math.round(sum / block / block)
  }
  return pixels
}

// A file of the reader's -> {pixels, canvas (the crop), title}.
export async function readFile(file) {
  const name = file.name || 'your picture'
  const { canvas, width, height } = crop(await decode(file), name)
  const cut = width === height ? '' : ', the middle square'
  const title = `${name}: ${width} × ${height} pixels${cut}.`
  return { pixels: shrink(canvas), crop: canvas, title }
}

// One image of sample.png -> its pixels.
export function readTile(sprite, row, column) {
  const draw = contextOf(canvasOf(32, 32))
  draw.drawImage(sprite, column * 32, row * 32, 32, 32, 0, 0, 32, 32)
  return draw.getImageData(0, 0, 32, 32).data
}

// Pictures of nothing: one colour, or noise that is the same at every visit.
export function plain(colour) {
  return Uint8ClampedArray.from({ length: 4096 }, (_, i) => i % 4 === 3 ? 255 : colour[i % 4])
}

export function noise() {
  let seed = 1
  const next = () => (seed = seed * 16807 % 2147483647) % 256
  return Uint8ClampedArray.from({ length: 4096 }, (_, i) => i % 4 === 3 ? 255 : next())
}
