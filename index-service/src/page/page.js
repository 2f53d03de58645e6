// The status page. Names of models and accounts are data: everything is set with textContent, and
// the page's policy forbids the rest.

import { bars, draw, line } from './charts.js';

const POLL_MS = 5000;
const TIMEOUT_MS = 8000;
const TOKEN_KEY = 'prompt-cache-token';
const TIERS = ['5m', '1h', '24h'];
const COLOURS = { '5m': 'c-m5', '1h': 'c-h1', '24h': 'c-h24' };
const REASONS = {
  below_floor: 'New part shorter than min_prefix_tokens',
  unknown_model: 'No such model in the configuration',
  unknown_principal: 'Credential without a right to cache',
  invalid_request: 'Malformed classification',
  look_up_failed: 'The store did not answer a look-up',
  count_failed: 'The tokenizer failed',
  count_timeout: 'Counting took too long',
  count_too_large: 'Text too large for its tokenizer',
  drift_stops_writes: 'Counts have drifted, writes are stopped',
  commit_expired: 'Committed after its life was over',
  commit_unknown_model: 'Commit for a model that is gone',
  commit_unknown_principal: 'Commit of a credential that is refused',
  commit_other_version: 'Counted by another tokenizer version',
  commit_tier_disabled: 'Tier not enabled for the model',
  commit_store_error: 'The store refused a commit; it is tried again',
  shed_concurrency: 'Shed: too many requests at once',
  shed_tokenize_queue: 'Shed: too many prompts waiting to be counted',
  shed_text_bytes: 'Shed: too many prompt bytes in flight',
  shed_timeout: 'Shed: the request took too long',
  shed_connections: 'Shed: too many connections',
};
const COMPARISONS_MIN = 8;

const find = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const percent = (share) => (share === null ? '–' : `${(100 * share).toFixed(1)} %`);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const ratio = (read, created) => (read + created > 0 ? read / (read + created) : null);
let last = null;
let timer = 0;

function make(name, className, ...content) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...content.map((item) => (item instanceof Node ? item : String(item))));
  return element;
}

function money(report, amount) {
  if (amount === null) return '–';
  const style = report.currency ? { style: 'currency', currency: report.currency } : { maximumFractionDigits: 2 };
  const digits = Math.abs(amount) < 1 ? { minimumFractionDigits: 2, maximumFractionDigits: 4 } : {};
  return new Intl.NumberFormat('en', { ...style, ...digits, signDisplay: 'negative' }).format(amount);
}

function moneyCell(report, amount) {
  const side = amount === null || Math.abs(amount) < 0.00005 ? '' : amount > 0 ? ' gain' : ' loss';
  return make('td', `num${side}`, money(report, amount));
}

function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function bytes(count) {
  if (!count) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  return `${(count / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

function time(ms, exact = false) {
  const options = { hour: '2-digit', minute: '2-digit', hour12: false };
  if (exact) options.second = '2-digit';
  return new Intl.DateTimeFormat('en', options).format(new Date(ms));
}

function table(id, heads, rows, empty) {
  if (!rows.length) {
    find(id).replaceChildren(make('caption', 'empty', empty));
    return;
  }
  const cells = heads.map(([label, className]) => {
    const cell = make('th', className, label);
    cell.scope = 'col';
    return cell;
  });
  find(id).replaceChildren(make('thead', '', make('tr', '', ...cells)), make('tbody', '', ...rows));
}

function rowHead(className, ...content) {
  const cell = make('th', className, ...content);
  cell.scope = 'row';
  return cell;
}

const number = (value) => make('td', 'num', whole.format(value));

function tiles(report, series, label) {
  const read = sum(series.read);
  const created = sum(TIERS.map((tier) => sum(series.created[tier])));
  const saved = report.models.map((model) => model.saved).filter((amount) => amount !== null);
  const tile = (name, value, note) => make('div', 'tile', make('span', 'muted', name), make('b', '', value), make('span', 'muted', note));
  find('tiles').replaceChildren(
    tile('Hit ratio', percent(ratio(read, created)), `of tokens, last ${label}`),
    tile('Tokens read', short.format(read), `last ${label}`),
    tile('Tokens written', short.format(created), `last ${label}`),
    tile('Requests with a hit', percent(sum(series.requests) ? sum(series.hits) / sum(series.requests) : null), `of ${whole.format(sum(series.requests))}, last ${label}`),
    tile('Saved', saved.length ? money(report, sum(saved)) : '–', saved.length ? 'since the start' : 'no prices configured'),
    tile('Live entries', report.store.entries === null ? '–' : short.format(report.store.entries), 'expired ones until swept'),
  );
}

function charts(report, series, label) {
  const length = series.read.length;
  const shape = { from_ms: series.from_ms, step_ms: series.step_ms, window_ms: series.window_ms, length };
  const created = (index) => sum(TIERS.map((tier) => series.created[tier][index]));
  const ratios = series.read.map((read, index) => ratio(read, created(index)));
  const overall = ratio(sum(series.read), sum(TIERS.map((tier) => sum(series.created[tier]))));
  draw(find('ratio'), {
    label: `Hit ratio of the last ${label}: ${percent(overall)} overall`,
    rest: `${percent(overall)} over the last ${label}`,
    max: 1, series: shape, time,
    format: (value) => `${Math.round(100 * value)} %`,
    marks: (x, y) => line(ratios, x, y),
    say: (index) => `hit ratio ${percent(ratios[index])}`,
  });
  const parts = [{ class: 'c-read', name: 'read', values: series.read }];
  for (const tier of TIERS) {
    const values = series.created[tier];
    if (sum(values) > 0) parts.push({ class: COLOURS[tier], name: `written, ${tier}`, values });
  }
  const items = parts.map((part) => make('li', '', make('i', part.class), `${part.name}: ${short.format(sum(part.values))}`));
  const said = parts.map((part) => `${whole.format(sum(part.values))} ${part.name}`).join(', ');
  draw(find('tokens'), {
    label: `Tokens of the last ${label}: ${said}`,
    rest: `Largest step: ${whole.format(Math.max(0, ...series.read.map((read, index) => read + created(index))))} tokens`,
    largest: Math.max(...series.read.map((read, index) => read + created(index))),
    series: shape, time,
    format: (value) => short.format(value),
    marks: (x, y, width) => bars(parts, x, y, width),
    say: (index) => parts.map((part) => `${whole.format(part.values[index])} ${part.name}`).join(', '),
    legend: make('ul', 'legend', ...items),
  });
  find('step').textContent = series.step_ms < 60000 ? `${series.step_ms / 1000} seconds` : `${series.step_ms / 60000} minutes`;
}

/** How well a model's counts follow its backend's: a colour and a text. */
function follows({ state, ratio, comparisons }) {
  if (ratio === null) return ['', 'not compared yet'];
  const factor = ratio.toFixed(3);
  if (state === 'trusted') return ['good', `${factor} trusted`];
  if (state === 'drifting') return ['bad', `${factor} drifting`];
  return comparisons < COMPARISONS_MIN ? ['', `${factor} of ${comparisons}`] : ['warn', `${factor} unmapped`];
}

function models(report) {
  const rows = report.models.flatMap((model) => {
    const [colour, text] = follows(model.counts);
    const pill = model.loaded ? make('span', `pill ${colour}`, text) : make('span', 'pill warn', 'tokenizer not loaded');
    const head = make('tr', model.tiers.length ? 'has-sub' : '',
      rowHead('name', model.model), number(model.requests), number(model.read), number(model.created),
      make('td', 'num', percent(ratio(model.read, model.created))), moneyCell(report, model.saved), make('td', '', pill));
    const tiers = model.tiers.map((tier) => make('tr', 'sub',
      rowHead('', `${tier.tier} tier`), make('td', ''), number(tier.read), number(tier.created),
      make('td', 'num', percent(ratio(tier.read, tier.created))), moneyCell(report, tier.saved), make('td', '')));
    return [head, ...tiers];
  });
  table('models', [['Model', ''], ['Requests', 'num'], ['Read', 'num'], ['Written', 'num'], ['Hit ratio', 'num'], ['Saved', 'num'], ['Our counts / backend’s', '']], rows, 'No model.');
  const more = report.models_configured - report.models.length;
  find('models-note').textContent = `Since the start${more > 0 ? `; the ${report.models.length} with the most tokens of ${report.models_configured}` : ''}. Saved: against plain input, what writes cost more included.`;
}

function accounts(report) {
  const rows = report.accounts.map((account) => make('tr', '',
    rowHead('name', account.account), make('td', 'name', account.model), number(account.read), number(account.created),
    make('td', 'num', percent(ratio(account.read, account.created)))));
  table('accounts', [['Account', ''], ['Model', ''], ['Read', 'num'], ['Written', 'num'], ['Hit ratio', 'num']], rows,
    report.accounts_configured ? 'No account has been seen yet.' : 'No accounts are configured.');
  find('accounts-note').textContent = 'By tokens, since the start. Credentials without an account are not listed.';
}

function reasons(report) {
  const rows = report.reasons.map((reason) => make('tr', '',
    rowHead('wide', make('code', '', reason.reason), make('div', 'muted', REASONS[reason.reason] ?? '')),
    number(reason.hour), number(reason.day), number(reason.total)));
  table('reasons', [['Reason', ''], ['Hour', 'num'], ['Day', 'num'], ['Total', 'num']], rows, 'Nothing so far.');
}

function service(report) {
  const { store, proxies } = report;
  const ago = (at) => (at === null ? 'never' : `${duration(report.now_ms - at)} ago`);
  const facts = [
    ['Store', `${store.kind}, ${store.answers ? 'answers' : 'does not answer'}`],
    ['Size on disk', bytes(store.disk_bytes)],
    ['Failed store operations', whole.format(store.errors)],
    ['Tried again', store.retries === null ? '–' : whole.format(store.retries)],
    ['A proxy asked for the policy', ago(proxies.policy_at_ms)],
    ['A proxy classified', ago(proxies.classify_at_ms)],
    ['Accounts', whole.format(report.accounts_configured)],
    ['Running for', duration(report.now_ms - report.started_at_ms)],
  ];
  find('service').replaceChildren(...facts.map(([name, value]) => make('div', '', make('dt', '', name), make('dd', '', value))));
}

function pill(text, colour) {
  find('ready').textContent = text;
  find('ready').className = `pill ${colour}`;
}

function show(report) {
  last = report;
  const label = document.querySelector('input[name=window]:checked').value;
  // A chart that is being read with the keyboard stays as it is.
  const reading = document.activeElement?.closest?.('.chart');
  find('figures').hidden = false;
  tiles(report, report[label], label);
  if (!reading) charts(report, report[label], label);
  models(report);
  accounts(report);
  reasons(report);
  service(report);
  pill(report.ready === 'ok' ? 'ready' : report.ready.replaceAll('_', ' '), report.ready === 'ok' ? 'good' : 'bad');
  find('meta').textContent = `version ${report.version} · ${time(report.now_ms, true)}`;
  find('ask').hidden = true;
  find('problem').hidden = true;
  document.documentElement.dataset.state = 'shown';
}

function ask(message) {
  pill('token needed', 'warn');
  find('figures').hidden = true;
  find('ask').hidden = false;
  find('forget').hidden = true;
  find('problem').hidden = !message;
  find('problem').textContent = message;
  find('token').focus();
  document.documentElement.dataset.state = 'asking';
}

async function poll() {
  clearTimeout(timer);
  const token = sessionStorage.getItem(TOKEN_KEY);
  find('forget').hidden = !token;
  try {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const answer = await fetch('v1/status', { headers, cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (answer.status === 401) {
      sessionStorage.removeItem(TOKEN_KEY);
      ask(token ? 'This token is not accepted.' : '');
      return;
    }
    if (!answer.ok) throw new Error(`the service answers ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    pill('not reached', 'bad');
    find('problem').hidden = false;
    find('problem').textContent = `No answer (${error.message}); trying again. The figures are those of ${last ? time(last.now_ms, true) : 'never'}.`;
  }
  timer = setTimeout(poll, document.hidden ? 6 * POLL_MS : POLL_MS);
}

find('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, find('token').value.trim());
  find('token').value = '';
  poll();
});
find('forget').addEventListener('click', () => {
  sessionStorage.removeItem(TOKEN_KEY);
  poll();
});
find('window').addEventListener('change', () => last && show(last));
addEventListener('resize', () => last && !find('figures').hidden && show(last));
document.addEventListener('visibilitychange', () => !document.hidden && !find('figures').hidden && poll());
poll();
