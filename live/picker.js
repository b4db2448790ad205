// The thumbnails of the embedded sample: filter, turn pages, choose.
import facts from './facts.js'

const find = id => document.getElementById(id)
const read = ([index, label, column, said]) => ({ index, label, column, said })
export const images = facts.sample.map(read)

export function describe({ index, label, said }) {
  const name = `Test image ${index}: ${facts.classes[label]}`
  return said === label ? name : `${name}, which the network takes for ${facts.classes[said]}`
}

export class Picker {
  constructor(choose) {
    Object.assign(this, { choose, shown: images, first: 0, chosen: null })
    facts.classes.forEach((name, k) => find('pick-class').add(new Option(name, k)))
    for (const id of ['pick-class', 'pick-which']) find(id).onchange = () => this.filter()
    find('previous').onclick = () => this.turn(-1)
    find('next').onclick = () => this.turn(1)
    find('pick-random').onclick = () => this.random()
    find('thumbs').onkeydown = event => this.key(event)
    new ResizeObserver(() => this.draw()).observe(find('thumbs'))
  }

  get columns() { return Math.max(1, Math.floor((find('thumbs').clientWidth + 4) / 52)) }
  get page() {
    const rows = document.documentElement.classList.contains('panel') ? 1 : 2
    return this.columns * rows
  }

  filter() {
    const label = find('pick-class').value, mistakes = find('pick-which').value === 'mistakes'
    this.shown = images.filter(image => (label === '' || image.label === Number(label))
      && (!mistakes || image.said !== image.label))
    this.first = 0
    this.draw()
  }

  turn(pages) {
    const next = this.first + pages * this.page
    if (next >= 0 && next < this.shown.length) this.first = next
    this.draw()
  }

  random() {
    if (this.shown.length) this.select(this.shown[Math.floor(Math.random() * this.shown.length)])
  }

  // Choose an image and turn to its page.
  select(image) {
    const place = this.shown.indexOf(image)
    if (place >= 0) this.first = place - place % this.page
    this.chosen = image
    this.draw()
    this.choose(image)
  }

  unselect() {
    this.chosen = null
    this.draw()
  }

  draw() {
    const some = this.shown.slice(this.first, this.first + this.page)
    const active = some.includes(this.chosen) ? this.chosen : some[0]
    find('thumbs').replaceChildren(...some.map(image => this.thumb(image, image === active)))
    const last = this.first + some.length
    const range = `${this.first + 1} to ${last} of ${this.shown.length}`
    find('range').textContent = some.length ? range : 'no such image'
    find('previous').disabled = this.first === 0
    find('next').disabled = last >= this.shown.length
  }

  thumb(image, active) {
    const button = document.createElement('button')
    button.type = 'button'
    button.title = describe(image)
    button.setAttribute('aria-label', describe(image))
    button.setAttribute('aria-pressed', image === this.chosen)
    button.tabIndex = active ? 0 : -1 // one stop for the Tab key; arrow keys do the rest
    button.classList.toggle('mistake', image.said !== image.label)
    button.style.backgroundPosition = `${image.column / 99 * 100}% ${image.label / 9 * 100}%`
    button.onclick = () => {
      this.select(image)
      find('thumbs').querySelector('[aria-pressed=true]')?.focus()
    }
    return button
  }

  key(event) {
    const thumbs = [...find('thumbs').children], at = thumbs.indexOf(document.activeElement)
    const places = {
      ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: thumbs.length - 1,
      ArrowUp: at - this.columns, ArrowDown: at + this.columns,
    }
    let next = places[event.key]
    if (next === undefined) return
    event.preventDefault()
    if (next < 0 || next >= thumbs.length) {
      this.turn(Math.sign(next))
      next = next < 0 ? find('thumbs').children.length - 1 : 0
    }
    const to = find('thumbs').children[next]
    for (const thumb of find('thumbs').children) thumb.tabIndex = thumb === to ? 0 : -1
    to?.focus()
  }
}
