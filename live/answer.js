// What the network said: ten rows, the chosen map, and the sentence below it.
import {
  drawCells, drawOverlay, mapOf, mean, readColours, signed, softmax, topClass,
} from './maps.js'
import facts from './facts.js'

const find = id => document.getElementById(id)
const percent = p => p > 0 && p < 0.0005 ? '< 0.1 %' : `${(100 * p).toFixed(1)} %`
const strongest = values => values.reduce((top, v) => Math.max(top, Math.abs(v)), 0)

export class AnswerView {
  constructor() {
    this.rows = facts.classes.map((name, k) => this.addRow(name, k))
    for (const id of ['map-of', 'minus']) {
      facts.classes.forEach((name, k) => find(id).add(new Option(name, k)))
      find(id).onchange = () => this.draw()
    }
    find('views').onchange = () => this.draw()
    matchMedia('(prefers-color-scheme: dark)').onchange = () => this.draw()
  }

  // One label with a radio button in it, so that arrow keys walk through the classes.
  addRow(name, k) {
    const row = document.createElement('label')
    row.innerHTML = `<input type="radio" name="class" value="${k}">
      <canvas width="40" height="40"></canvas>
      <span class="name">${name}</span><span class="bar"><i></i><b hidden></b></span>
      <span class="percent"></span><span class="change"></span>`
    row.querySelector('input').onchange = () => {
      find('map-of').value = k
      this.draw()
    }
    find('rows').append(row)
    const part = selector => row.querySelector(selector)
    return {
      row, radio: part('input'), map: part('canvas'), bar: part('i'), mark: part('b'),
      percent: part('.percent'), change: part('.change'),
    }
  }

  // Show `now` beside `before`, what it said with nothing hidden (the same object if nothing is).
  show(now, before, pixels, plainPixels) {
    Object.assign(this, { now, before, pixels, plainPixels })
    this.draw()
  }

  // The class whose map is shown: the chosen one, or the answer.
  get chosen() {
    const { value } = find('map-of')
    return value === '' ? topClass(this.now.logits) : Number(value)
  }

  // The class whose map is taken away from it, or null.
  get minus() {
    const { value } = find('minus')
    return value === '' || Number(value) === this.chosen ? null : Number(value)
  }

  draw() {
    if (!this.now) return
    this.colours = readColours()
    const painted = this.now !== this.before
    for (const input of find('views').querySelectorAll('input')) {
      input.disabled = !painted && input.value !== 'now'
    }
    // The numbers in the map first: to write text on a canvas, the browser lays out what changed
    this.drawMap(painted ? find('views').querySelector(':checked').value : 'now')
    this.drawRows(painted)
  }

  drawRows(painted) {
    const now = softmax(this.now.logits), before = softmax(this.before.logits)
    const limit = strongest(this.before.maps), top = topClass(this.now.logits)
    this.rows.forEach((row, k) => {
      drawCells(row.map, mapOf(this.now, k), limit, this.colours)
      row.bar.style.width = row.mark.style.left = `${100 * now[k]}%`
      row.mark.style.left = `${100 * before[k]}%`
      row.mark.hidden = !painted
      row.percent.textContent = percent(now[k])
      const points = Math.round(100 * (now[k] - before[k]))
      const change = `${points > 0 ? '+' : '−'}${Math.abs(points)}`
      row.change.textContent = painted && points ? change : ''
      row.row.classList.toggle('top', k === top)
      row.radio.checked = k === this.chosen
    })
  }

  drawMap(view) {
    const map = answer => mapOf(answer, this.chosen, this.minus)
    const [now, before] = [map(this.now), map(this.before)]
    const cells = { now, before, change: now.map((v, i) => v - before[i]) }[view]
    const limit = this.minus === null ? strongest(this.before.maps) : strongest(before)
    drawCells(find('cells'), cells, limit, this.colours, true)
    const numbers = [...cells].map(v => signed(v)).join(', ')
    find('cells').setAttribute('aria-label', `The map as 4 by 4 numbers, row by row: ${numbers}`)
    drawOverlay(find('overlay'), view === 'before' ? this.plainPixels : this.pixels, cells, limit)
    const [name, other] = [facts.classes[this.chosen], facts.classes[this.minus]]
    find('low').textContent = other ? `${signed(-limit)} for ${other}` : `${signed(-limit)} against`
    find('high').textContent = other ? `for ${name} ${signed(limit)}` : `for ${signed(limit)}`
    find('sum').textContent = this.explain(view, cells)
  }

  // How the 16 cells make the answer.
  explain(view, cells) {
    const [k, minus] = [this.chosen, this.minus], { classes, head } = facts
    const less = values => values[k] - (minus === null ? 0 : values[minus])
    const logit = answer => less(answer.logits)
    const what = `the logit of ${classes[k]}`
      + (minus === null ? '' : ` less that of ${classes[minus]}`)
    if (view === 'change') {
      const [from, to] = [this.before, this.now].map(answer => signed(logit(answer), 2))
      return `Your brush moved ${what} from ${from} to ${to}.`
    }
    const answer = view === 'now' ? this.now : this.before
    const bias = minus === null ? 'bias' : 'biases'
    const sum = `The 16 cells average ${signed(mean(cells), 3)}. With the ${bias}, `
      + `${signed(less(head.bias), 3)}, that is ${what}, ${signed(logit(answer), 3)}: `
    if (minus === null) return `${sum}${percent(softmax(answer.logits)[k])} after softmax.`
    const [likely, other] = logit(answer) < 0 ? [minus, k] : [k, minus]
    const odds = Math.exp(Math.abs(logit(answer)))
    return `${sum}${classes[likely]} is ${odds.toFixed(odds < 10 ? 1 : 0)} times as probable `
      + `as ${classes[other]}.`
  }

  // For screen readers: the two most probable classes.
  get spoken() {
    const named = softmax(this.now.logits).map((p, k) => [p, facts.classes[k]])
    const order = named.sort((a, b) => b[0] - a[0])
    return order.slice(0, 2).map(([p, name]) => `${name} ${Math.round(100 * p)} percent`).join(', ')
  }
}
