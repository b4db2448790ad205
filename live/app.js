// Puts the page together: a picture goes to the network, its answer to the rows and maps.
import { AnswerView } from './answer.js'
import { Easel } from './easel.js'
import { Network, whyNot } from './network.js'
import { Picker, describe, images } from './picker.js'
import { noise, plain, readFile, readTile } from './picture.js'
import facts from './facts.js'

const find = id => document.getElementById(id)
const query = new URLSearchParams(location.search)
document.documentElement.classList.toggle('panel', query.get('panel') === '1')

const FIRST = '25' // a bird, whose maps differ from class to class
const network = new Network()
const view = new AnswerView()
const easel = new Easel(painted)
const picker = new Picker(chooseTile)
const sprite = Object.assign(new Image(), { src: 'sample.png' })
const loaded = sprite.decode()
let source = null // what is on the easel: {pixels, title, crop, before}
let dirty = false, busy = false, since = 0, reading = 0
const timing = { strokes: 0, answers: 0, wait: 0 } // wait: milliseconds from a change to its answer

// Show a picture of any origin.
function show(picture) {
  source = { ...picture, before: null }
  reading++
  find('title').textContent = picture.title
  find('own').hidden = !picture.crop
  if (picture.crop) find('crop').getContext('2d').drawImage(picture.crop, 0, 0, 128, 128)
  complain('')
  easel.put(picture.pixels)
}

// Choosing a test image starts the network; the first one, which the page itself chooses, does not.
async function chooseTile(image) {
  if (source) start()
  await loaded
  if (picker.chosen !== image) return
  show({ pixels: readTile(sprite, image.label, image.column), title: `${describe(image)}.` })
}

function complain(text) {
  find('problem').textContent = text
  find('problem').hidden = !text
}

// A change on the easel: the answer to the latest one is what counts.
function painted() {
  dirty = true
  since = performance.now()
  timing.strokes++
  catchUp()
}

async function catchUp() {
  if (busy || network.state !== 'ready') return
  busy = true
  await null // what else happens at this moment belongs to the same picture
  try {
    while (dirty) {
      dirty = false
      const [asked, at, pixels] = [source, since, easel.seen]
      asked.before ??= await network.run(asked.pixels)
      const now = easel.brush.empty ? asked.before : await network.run(pixels)
      if (asked !== source) continue
      document.querySelector('main').classList.remove('waiting')
      view.show(now, asked.before, pixels, asked.pixels)
      timing.answers++
      timing.wait = performance.now() - at
      find('status').textContent = `Computed here in ${Math.round(now.ms)} ms.`
      speak()
    }
  } catch (error) {
    complain(`The network stopped: ${error.message}. Load the page again.`)
  } finally { busy = false }
}

let silence
function speak() {
  clearTimeout(silence)
  silence = setTimeout(() => { find('spoken').textContent = view.spoken }, 700)
}

async function start() {
  if (network.state !== 'off') return
  const reason = whyNot()
  if (reason) {
    find('start-note').textContent = `This browser cannot run the network: ${reason}. `
      + 'A current Firefox, Chrome, Edge or Safari can.'
    return
  }
  find('start').hidden = true
  find('progress').hidden = false
  find('start-note').textContent = 'Loading the network …'
  try {
    await network.start(share => {
      find('progress').value = share
      if (share >= 1) find('start-note').textContent = 'Preparing the network …'
    })
    find('start-box').hidden = true
    catchUp()
  } catch (error) {
    find('start').hidden = false
    find('progress').hidden = true
    const note = `The network could not be loaded (${error.message}). Try again.`
    find('start-note').textContent = note
  }
}

async function takeFile(file) {
  if (!file) return
  const turn = ++reading // a large photograph takes its time: what was chosen last counts
  complain('')
  try {
    const picture = await readFile(file)
    if (turn !== reading) return
    picker.unselect()
    show(picture)
    start()
  } catch (error) { if (turn === reading) complain(error.message) }
}

function showPlain(pixels, title) {
  picker.unselect()
  show({ pixels, title })
  start()
}

find('start').onclick = start
for (const id of ['file', 'camera']) find(id).onchange = ({ target }) => {
  takeFile(target.files[0])
  target.value = '' // the same file may be chosen again
}
const yet = 'there is nothing in it, and yet the ten add up to 100 %.'
find('plain').onclick = () => showPlain(plain([128, 128, 128]), `Plain grey: ${yet}`)
find('noise').onclick = () => showPlain(noise(), `Noise: ${yet}`)

// A file dropped anywhere, or pasted.
addEventListener('dragover', event => {
  event.preventDefault()
  find('drop').hidden = !event.dataTransfer?.types.includes('Files')
})
addEventListener('dragleave', event => { if (!event.relatedTarget) find('drop').hidden = true })
addEventListener('drop', event => {
  event.preventDefault()
  find('drop').hidden = true
  takeFile(event.dataTransfer?.files[0])
})
addEventListener('paste', event => takeFile(event.clipboardData?.files[0]))

// The address may name an image (its official index) and classes: ?image=103&class=cat&minus=dog
function readAddress() {
  for (const [key, id] of [['class', 'map-of'], ['minus', 'minus']]) {
    const k = facts.classes.indexOf(query.get(key))
    if (k >= 0) find(id).value = k
  }
  const named = index => images.find(image => String(image.index) === index)
  return named(query.get('image')) ?? named(FIRST) ?? images[0]
}

loaded.then(() => { if (!source) picker.select(readAddress()) },
  () => complain('The test images could not be loaded. Load the page again.'))

// For tests and for the curious: cifarCam.run(pixels) on 32x32 RGB or RGBA bytes.
window.cifarCam = {
  run: pixels => network.run(pixels),
  settled: () => !busy && !dirty && network.state === 'ready',
  timing, easel, view,
}
