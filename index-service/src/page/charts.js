// Charts as SVG. Text goes in with textContent only; what a chart shows is also its label, and the
// arrow keys move the cursor that the mouse moves.

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH_MIN = 260;
const HEIGHT = 210;
const PAD = { left: 46, right: 8, top: 8, bottom: 22 };

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function text(x, y, anchor, content) {
  const element = svg('text', { x, y, 'text-anchor': anchor });
  element.textContent = content;
  return element;
}

/** The next larger of 1, 2, 2.5, 5, 10, … */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= value);
}

/**
 * Draws into `place`: axes, marks, a cursor. `chart` is
 * {label, max, series: {from_ms, step_ms, window_ms, length}, format(value), marks(x, y, step) → elements,
 *  say(index) → text, time(ms) → text}.
 */
export function draw(place, chart) {
  const { series } = chart;
  const width = Math.max(WIDTH_MIN, place.clientWidth);
  const end = series.from_ms + series.step_ms * series.length;
  const start = end - series.window_ms;
  const inner = { width: width - PAD.left - PAD.right, height: HEIGHT - PAD.top - PAD.bottom };
  const x = (index) => PAD.left + ((series.from_ms + series.step_ms * index - start) / series.window_ms) * inner.width;
  const max = chart.max ?? roundUp(Math.max(1, chart.largest));
  const y = (value) => PAD.top + inner.height * (1 - value / max);
  const step = (series.step_ms / series.window_ms) * inner.width;

  const frame = [];
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const at = y(max * share);
    frame.push(svg('line', { class: 'grid', x1: PAD.left, x2: width - PAD.right, y1: at, y2: at }));
    if (share !== 0.25 && share !== 0.75) frame.push(text(PAD.left - 6, at + 4, 'end', chart.format(max * share)));
  }
  for (const share of [0, 0.5, 1]) {
    const anchor = share === 0 ? 'start' : share === 1 ? 'end' : 'middle';
    const at = PAD.left + inner.width * share;
    frame.push(text(at, HEIGHT - 4, anchor, chart.time(start + series.window_ms * share)));
  }
  const cursor = svg('line', { class: 'cursor', y1: PAD.top, y2: HEIGHT - PAD.bottom, visibility: 'hidden' });
  const root = svg('svg', { viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img', tabindex: '0' });
  root.setAttribute('aria-label', `${chart.label}. Arrow keys read single values.`);
  root.append(...frame, ...chart.marks(x, y, step), cursor);

  const readout = document.createElement('p');
  readout.className = 'readout muted';
  readout.setAttribute('aria-live', 'polite');
  readout.textContent = chart.rest;
  let at = series.length - 1;
  const show = (index) => {
    at = Math.max(0, Math.min(series.length - 1, index));
    cursor.setAttribute('x1', x(at + 0.5));
    cursor.setAttribute('x2', x(at + 0.5));
    cursor.setAttribute('visibility', 'visible');
    readout.textContent = `${chart.time(series.from_ms + at * series.step_ms, true)} · ${chart.say(at)}`;
  };
  const leave = () => {
    cursor.setAttribute('visibility', 'hidden');
    readout.textContent = chart.rest;
  };
  root.addEventListener('pointermove', (event) => {
    const box = root.getBoundingClientRect();
    const ms = start + (((event.clientX - box.left) / box.width * width - PAD.left) / inner.width) * series.window_ms;
    show(Math.floor((ms - series.from_ms) / series.step_ms));
  });
  root.addEventListener('pointerleave', leave);
  root.addEventListener('blur', leave);
  root.addEventListener('focus', () => { if (root.matches(':focus-visible')) show(at); });
  root.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 12, PageDown: at + 12, Home: 0, End: series.length - 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(step);
  });
  place.replaceChildren(root, ...(chart.legend ? [chart.legend] : []), readout);
}

/** A line over the values that are numbers, with gaps where there are none. */
export function line(values, x, y) {
  const marks = [];
  let run = [];
  const finish = () => {
    if (run.length === 1) marks.push(svg('circle', { class: 'dot', cx: run[0][0], cy: run[0][1], r: 2.5 }));
    if (run.length > 1) {
      const path = run.map(([px, py], n) => `${n ? 'L' : 'M'}${px.toFixed(1)} ${py.toFixed(1)}`).join('');
      const close = `L${run.at(-1)[0].toFixed(1)} ${y(0)}L${run[0][0].toFixed(1)} ${y(0)}Z`;
      marks.push(svg('path', { class: 'area', d: path + close }), svg('path', { class: 'line', d: path }));
    }
    run = [];
  };
  values.forEach((value, index) => {
    if (value === null) finish();
    else run.push([x(index + 0.5), y(value)]);
  });
  finish();
  return marks;
}

/** Bars of several parts: [{class, values}], the first at the bottom. */
export function bars(parts, x, y, width) {
  const marks = [];
  const gap = width > 4 ? 1 : 0;
  parts[0].values.forEach((_, index) => {
    let sum = 0;
    for (const part of parts) {
      const value = part.values[index];
      if (!value) continue;
      const top = y(sum + value);
      marks.push(svg('rect', { class: part.class, x: x(index), width: Math.max(1, width - gap), y: top, height: Math.max(0.5, y(sum) - top) }));
      sum += value;
    }
  });
  return marks;
}
