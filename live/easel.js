// The large picture, on which the reader paints with pointer or keys.
import { Brush, blur } from './brush.js'
import { plain } from './picture.js'
import facts from './facts.js'

const find = id => document.getElementById(id)
const COVERS = {
  mean: () => plain(facts.mean.map(v => Math.round(v * 255))),
  black: () => plain([0, 0, 0]),
  blur,
}

export class Easel {
  // `painted` is called after every change of what the network shall see.
  constructor(painted) {
    Object.assign(this, { painted, brush: new Brush(), at: [16, 16], inside: false })
    const easel = find('easel')
    easel.onpointerdown = event => this.down(event)
    easel.onpointermove = event => this.move(event)
    easel.onpointerup = easel.onpointercancel = () => { this.last = null }
    easel.onpointerleave = () => this.hover(false)
    easel.onkeydown = event => this.key(event)
    easel.onfocus = easel.onblur = () => this.cursor()
    find('width').oninput = () => this.cursor()
    find('cover').onchange = () => this.change()
    find('undo').onclick = () => this.undo()
    find('reveal').onclick = () => this.reveal()
  }

  get width() { return Number(find('width').value) }
  get value() { return find('uncover').checked ? 0 : 1 }

  // Show other pixels, with nothing hidden.
  put(pixels) {
    this.pixels = pixels
    this.covers = {}
    this.brush.clear()
    this.change()
  }

  // What the network sees.
  get seen() {
    const name = find('cover').value
    this.covers[name] ??= COVERS[name](this.pixels)
    return this.brush.hide(this.pixels, this.covers[name])
  }

  change() {
    const image = new ImageData(this.seen, 32, 32)
    for (const id of ['picture', 'actual']) find(id).getContext('2d').putImageData(image, 0, 0)
    find('undo').disabled = !this.brush.past.length
    find('reveal').disabled = this.brush.empty
    this.painted()
  }

  undo() {
    this.brush.undo()
    this.change()
  }

  reveal() {
    this.brush.begin()
    this.brush.mask.fill(0)
    this.change()
  }

  place(event) {
    const box = find('picture').getBoundingClientRect()
    return [event.clientX - box.left, event.clientY - box.top].map(v => v / box.width * 32)
  }

  down(event) {
    if (event.button) return
    try { find('easel').setPointerCapture(event.pointerId) } catch { /* a pointer that is gone */ }
    this.brush.begin()
    this.last = this.at = this.place(event)
    this.brush.stamp(...this.last, this.width, this.value)
    this.hover(true)
    this.change()
  }

  move(event) {
    this.at = this.place(event)
    this.hover(true)
    if (!this.last) return
    const moved = this.brush.line(this.last, this.at, this.width, this.value)
    this.last = this.at
    if (moved) this.change()
  }

  key(event) {
    const step = event.shiftKey ? 8 : 2
    const keys = {
      ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step],
    }
    const move = keys[event.key], undo = event.key === 'z' && (event.ctrlKey || event.metaKey)
    if (move) this.at = this.at.map((v, i) => Math.min(32, Math.max(0, Math.round(v) + move[i])))
    else if (event.key === ' ' || event.key === 'Enter') {
      this.brush.begin()
      this.brush.stamp(...this.at, this.width, this.value)
      this.change()
    } else if (undo || event.key.toLowerCase() === 'u') this.undo()
    else return
    event.preventDefault()
    this.cursor()
  }

  hover(inside) {
    this.inside = inside
    this.cursor()
  }

  // The outline of the brush.
  cursor() {
    const canvas = find('cursor'), draw = canvas.getContext('2d'), scale = canvas.width / 32
    draw.clearRect(0, 0, canvas.width, canvas.height)
    if (!this.inside && document.activeElement !== find('easel')) return
    for (const [style, width] of [['#000000', 8], ['#ffffff', 4]]) {
      Object.assign(draw, { strokeStyle: style, lineWidth: width })
      draw.beginPath()
      draw.arc(this.at[0] * scale, this.at[1] * scale, this.width / 2 * scale, 0, 2 * Math.PI)
      draw.stroke()
    }
  }
}
