// The page in a real Chromium, under load from redis-benchmark.
//
// node tests/browser/dashboard.js [--screenshots FOLDER] [BINARY]
//
// Starts two redis-servers and Tally on free ports of 127.0.0.1, drives the page, and stops all.
// With --screenshots it also writes pictures at 1440 and 390 pixels, light and dark.
'use strict';

const assert = require('node:assert/strict');
const { spawn, execFile } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { promisify } = require('node:util');
const { chromium } = require('playwright-core');

const run = promisify(execFile);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tally-browser-'));
const children = [];

/** A port on which nothing listens now, below the ephemeral range. */
async function freePort() {
  for (let tries = 0; tries < 100; tries++) {
    const port = 12000 + Math.floor(Math.random() * 20000);
    const free = await new Promise((resolve) => {
      const server = net.createServer();
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new Error('no free port');
}

/** Asks again until `condition` holds; what it says last is part of the error. */
async function eventually(what, condition, limitMs = 15000) {
  const deadline = Date.now() + limitMs;
  let last;
  for (;;) {
    last = await condition();
    if (last) return last;
    if (Date.now() > deadline) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function start(command, args, output = 'log') {
  const log = fs.openSync(path.join(folder, output), 'a');
  const child = spawn(command, args, { stdio: ['ignore', log, log], cwd: folder });
  children.push(child);
  return child;
}

const cli = async (port, ...args) =>
  (await run('redis-cli', ['-h', '127.0.0.1', '-p', String(port), ...args])).stdout.trim();

async function answers(port) {
  try {
    return (await cli(port, 'PING')) === 'PONG';
  } catch {
    return false;
  }
}

async function stack(binary) {
  const ports = { nodes: [await freePort(), await freePort()], redis: await freePort(), http: await freePort() };
  for (const port of ports.nodes) {
    ports[port] = start('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']);
  }
  const nodes = ports.nodes.map(
    (port, at) => `[[nodes]]\nname = "redis_${7070 + at}"\naddress = "127.0.0.1:${port}"\n`);
  const file = path.join(folder, 'tally.toml');
  fs.writeFileSync(file, `[server]\nlisten = "127.0.0.1:${ports.redis}"\n[admin]\nlisten = "127.0.0.1:${ports.http}"\n${nodes.join('')}`);
  start(binary, ['--config', file]);
  for (const port of [...ports.nodes, ports.redis]) await eventually(`PONG on ${port}`, () => answers(port));
  return ports;
}

function load(port, ...args) {
  return start('redis-benchmark', ['-h', '127.0.0.1', '-p', port, '-q', ...args.map(String)], 'load');
}

/** Visits of a small site: some pages are liked more than others. */
async function visits(url, stop) {
  const pages = ['home', 'pricing', 'docs/start', 'blog/one-million-counters', 'about', 'contact', 'changelog'];
  for (let n = 0; !stop.now; n++) {
    const page = pages[Math.floor(pages.length * Math.random() ** 2.5)];
    await fetch(`${url}visit/${encodeURIComponent(page)}`, { method: 'POST' });
    if (n % 3 === 0) await fetch(`${url}visits/${encodeURIComponent(page)}`);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}

/** A page that fails the test on a console error and on a request to anybody else. */
async function open(browser, url, faults, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('request', (request) => {
    const asked = request.url();
    if (!asked.startsWith(url) && !asked.startsWith('data:')) faults.push(`request: ${asked}`);
  });
  await page.goto(url);
  await page.getByText('Live', { exact: true }).waitFor();
  return page;
}

/** The number shown by an element. */
const number = async (page, selector) => {
  const text = (await page.locator(selector).textContent()).replaceAll(',', '');
  const scale = text.endsWith('k') ? 1e3 : text.endsWith('M') ? 1e6 : 1;
  return parseFloat(text) * scale;
};

const rowOf = (page, key) => page.locator('#rows tr').filter({ has: page.getByRole('button', { name: key, exact: true }) });
const valueOf = async (page, key) => parseInt((await rowOf(page, key).locator('td.value').textContent()).replaceAll(',', ''), 10);

async function emptyPage(page, ports) {
  // Useful before anything was counted.
  await page.getByRole('heading', { name: 'Nothing has been counted yet. Connect:' }).waitFor();
  await page.getByText(`redis-cli -h 127.0.0.1 -p ${ports.redis} INCR visits:home`).waitFor();
  assert.equal(await page.locator('#g-nodes').textContent(), '2 of 2');
  assert.equal(await page.locator('#rows tr').count(), 0);
}

async function slowCounter(page, url, ports) {
  // One visit by HTTP and one by a Redis client are seen, however slow.
  await fetch(`${url}visit/first`, { method: 'POST' });
  await rowOf(page, 'visits:first').waitFor();
  await eventually('the first visit', async () => (await valueOf(page, 'visits:first')) === 1);
  assert.equal(await cli(ports.redis, 'INCRBY', 'visits:first', '1233'), '1234');
  await eventually('1,234', async () => (await rowOf(page, 'visits:first').locator('td.value').textContent()) === '1,234');
  assert.equal(await page.locator('#connect').isVisible(), false);
}

async function underLoad(page, ports) {
  await eventually('increments per second', async () => (await number(page, '#g-incr')) > 1000);
  await eventually('commands per second', async () => (await number(page, '#g-cmd')) > 1000);
  await eventually('round trips saved', async () => (await number(page, '#g-saved')) > 50);
  await page.getByLabel('Order by').selectOption('value');
  await rowOf(page, 'visits:home').waitFor({ timeout: 15000 });
  const before = await valueOf(page, 'visits:home');
  await eventually('a value that rises', async () => (await valueOf(page, 'visits:home')) > before);
  const shown = await valueOf(page, 'visits:home');
  const real = Number(await cli(ports.redis, 'GET', 'visits:home'));
  assert.ok(real >= shown, `the page shows ${shown}, Redis says ${real}`);
  await page.getByRole('button', { name: 'Show more' }).click();
  await eventually('more than 15 rows', async () => (await page.locator('#rows tr').count()) > 15);
  await page.getByRole('button', { name: 'Show fewer' }).click();
  await page.getByLabel('Order by').selectOption('rate');
}

async function search(page, faults) {
  // "/" goes to the search; typing leaves what has it in its name.
  await page.locator('body').press('/');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'search');
  await page.keyboard.type('VISITS:');
  await eventually('only visits', async () => {
    const keys = await page.locator('#rows .key').allTextContents();
    return keys.length > 3 && keys.every((key) => key.startsWith('visits:'));
  });
  await page.locator('#search').fill('no such counter');
  await page.getByText('No counter asked for lately has “no such counter” in its name.').waitFor();
  await page.getByRole('button', { name: 'Look up “no such counter” in Redis' }).click();
  await page.getByText('there is no such key').waitFor();
  // Chromium logs the 404 that was asked for.
  await eventually('the 404', () => faults.length);
  assert.match(faults.shift(), /status of 404/);
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('#details').isVisible(), false);
  await page.locator('#search').fill('');
}

async function details(page, ports) {
  await cli(ports.redis, 'SET', 'once', '41', 'EX', '500');
  await page.locator('#search').fill('once');
  await page.locator('#search').press('Enter');
  const dialog = page.getByRole('dialog');
  await dialog.getByText('41', { exact: true }).waitFor();
  await dialog.getByText('in 8 min').waitFor();
  await dialog.getByRole('button', { name: 'Close' }).click();
  await page.locator('#search').fill('');
}

async function topTen(page) {
  await page.getByRole('tab', { name: 'Writes' }).focus();
  for (const [tab, want] of [['Reads', 1], ['Value', 5], ['Prefix', 1]]) {
    await page.keyboard.press('ArrowRight');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), tab);
    await eventually(`${tab}: ${want} rows`, async () => (await page.locator('#top li').count()) >= want);
  }
  await page.getByText('visits:*').waitFor();
  await page.getByRole('tab', { name: 'Writes' }).click();
  await page.getByRole('tabpanel').getByRole('button', { name: 'visits:home' }).waitFor();
}

async function refusals(page, ports) {
  await cli(ports.redis, 'NOSUCH', 'hunter2');
  await page.getByText("ERR unknown command 'NOSUCH'").waitFor();
  assert.equal(await page.getByText('hunter2').count(), 0);
}

async function limitsAndSlow(page, ports) {
  // A limit script at its limit, and a node that hangs for a moment: both are on the page.
  const atLimit = "local current = tonumber(redis.call('GET', KEYS[1]) or '0') if current >= tonumber(ARGV[1]) then return -1 end " +
    "return redis.call('INCR', KEYS[1])";
  for (let n = 0; n < 40; n++) await cli(ports.redis, 'EVAL', atLimit, '1', 'limit:login', '5');
  await page.getByRole('heading', { name: 'Rate limits' }).waitFor();
  await page.locator('#limit-rows').getByRole('button', { name: 'limit:login' }).waitFor();
  await cli(ports.redis, 'EVAL', "local t = redis.call('TIME') local e = t[1] * 1000 + t[2] / 1000 + 40 " +
    "repeat t = redis.call('TIME') until t[1] * 1000 + t[2] / 1000 > e return 'slow'", '1', 'slow:key');
  await page.locator('#slow').getByText('slow:key').waitFor();
  const slow = await (await fetch(`http://127.0.0.1:${ports.http}/api/v1/slowlog`)).json();
  const entry = slow.find((one) => one.request.includes('slow:key'));
  assert.ok(entry.took_ms >= 40 && entry.node_ms > entry.tally_ms, JSON.stringify(entry));
}

async function hotKeys(page, ports) {
  // The command, the API and the page name the same keys.
  const hot = await eventually('hot keys', async () => {
    const hot = await (await fetch(`http://127.0.0.1:${ports.http}/api/v1/hotkeys?n=5`)).json();
    return hot.writes.length && hot.reads.length ? hot : null;
  });
  assert.equal(hot.writes[0].key, 'visits:home');
  assert.match(hot.reads[0].key, /^api:user:/);
  const told = (await cli(ports.redis, 'TALLY', 'HOTKEYS', '1')).split('\n');
  assert.equal(told[told.indexOf('key') + 1], 'visits:home');
}

async function awayAndBack(page, ports) {
  // A node breaks: the page says so, and says when it is back.
  ports[ports.nodes[1]].kill('SIGKILL');
  await eventually('1 of 2', async () => (await page.locator('#g-nodes').textContent()) === '1 of 2');
  await page.locator('#verdict.bad').waitFor();
  // Said once, not every second.
  const turn = page.locator('#turn');
  await eventually('the turn read aloud', async () => /^Something is wrong\. .*1 node is away/.test(await turn.textContent()));
  await page.locator('#nodes').getByText('refused').waitFor();
  const port = ports.nodes[1];
  ports[port] = start('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']);
  await eventually('2 of 2', async () => (await page.locator('#g-nodes').textContent()) === '2 of 2');
  await eventually('the turn back', async () => (await turn.textContent()).startsWith('All is well again.'));
}

async function keysCanBeTold(page) {
  // What tells the keys of one kind apart is at their ends, and in sight.
  const hidden = await page.evaluate(() => [...document.querySelectorAll('#rows .key')].filter((key) => {
    const end = key.lastElementChild.getBoundingClientRect();
    return end.right > key.closest('td').getBoundingClientRect().right + 1;
  }).map((key) => key.title));
  assert.deepEqual(hidden, []);
}

async function noOverflow(page, width) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= width, `${wide} pixels at a width of ${width}`);
}

/** Everything that a screen reader needs: a name for each control, one h1, landmarks. */
async function accessible(page) {
  const faults = await page.evaluate(() => {
    const named = (node) => node.getAttribute('aria-label') || node.textContent.trim() || (node.labels && [...node.labels].some((label) => label.textContent.trim()));
    const controls = [...document.querySelectorAll('button, input, select, a')].filter((node) => node.checkVisibility());
    const found = controls.filter((node) => !named(node)).map((node) => node.outerHTML);
    for (const one of ['h1', 'main', 'header', 'footer']) if (document.querySelectorAll(one).length !== 1) found.push(one);
    for (const id of [...document.querySelectorAll('[aria-labelledby], [aria-controls]')].flatMap((node) => [node.getAttribute('aria-labelledby'), node.getAttribute('aria-controls')])) {
      if (id && !document.getElementById(id)) found.push(`#${id}`);
    }
    return found;
  });
  assert.deepEqual(faults, []);
}

async function screenshots(browser, url, faults, target) {
  fs.mkdirSync(target, { recursive: true });
  const pages = [];
  for (const width of [1440, 390]) {
    for (const colorScheme of ['light', 'dark']) {
      const options = { viewport: { width, height: width === 390 ? 844 : 900 }, colorScheme };
      pages.push([await open(browser, url, faults, options), `dashboard-${width}-${colorScheme}.png`, width]);
    }
  }
  // Charts with something in them.
  await new Promise((resolve) => setTimeout(resolve, 15000));
  for (const [page, name, width] of pages) {
    await noOverflow(page, width);
    await page.screenshot({ path: path.join(target, name), fullPage: width !== 390 });
    if (width === 390) {
      await page.screenshot({ path: path.join(folder, `full-${name}`), fullPage: true });
    }
    await page.context().close();
  }
}

async function main() {
  const args = process.argv.slice(2);
  const at = args.indexOf('--screenshots');
  const target = at >= 0 ? path.resolve(args.splice(at, 2)[1]) : null;
  const binary = path.resolve(args[0] || process.env.TALLY_SUITE_BINARY || 'target/release/tally');
  const ports = await stack(binary);
  const url = `http://127.0.0.1:${ports.http}/`;
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  const faults = [];
  const stop = { now: false };
  let visiting = Promise.resolve();
  let passed = 0;
  let page;
  const step = async (name, body) => {
    try {
      await body();
    } catch (error) {
      await page.screenshot({ path: path.join(folder, 'failed.png'), fullPage: true });
      console.error(`failed: ${name}; see ${folder}/failed.png; faults: ${faults}`);
      throw error;
    }
    passed += 1;
    console.log(`ok ${passed} - ${name}`);
  };
  try {
    page = await open(browser, url, faults, { viewport: { width: 1440, height: 900 } });
    await step('an empty page says how to connect', () => emptyPage(page, ports));
    await step('a slow counter is shown', () => slowCounter(page, url, ports));
    visiting = visits(url, stop);
    load(ports.redis, '-l', '-c', 6, '-P', 4, 'INCR', 'visits:home');
    load(ports.redis, '-l', '-c', 4, '-r', 40, 'INCRBY', 'api:user:__rand_int__', '3');
    load(ports.redis, '-l', '-c', 4, '-r', 12, 'GET', 'api:user:__rand_int__');
    await step('values rise under load', () => underLoad(page, ports));
    await step('search', () => search(page, faults));
    await step('details of a key', () => details(page, ports));
    await step('top ten by keyboard', () => topTen(page));
    await step('hot keys', () => hotKeys(page, ports));
    await step('rate limits and slow requests', () => limitsAndSlow(page, ports));
    await step('refused commands without their arguments', () => refusals(page, ports));
    await step('names for screen readers', () => accessible(page));
    for (const width of [390, 768, 1440]) {
      await page.setViewportSize({ width, height: 900 });
      await step(`no sideways scrolling at ${width}`, () => noOverflow(page, width));
      await step(`keys can be told apart at ${width}`, () => keysCanBeTold(page));
    }
    if (target) await step('screenshots', () => screenshots(browser, url, faults, target));
    stop.now = true;
    await visiting;
    await step('a node away, and back', () => awayAndBack(page, ports));
    await step('no console error, no request to anybody else', () => assert.deepEqual(faults, []));
  } finally {
    stop.now = true;
    await visiting.catch(() => {});
    await browser.close();
    for (const child of children.reverse()) child.kill('SIGTERM');
    await Promise.all(children.map((child) =>
      child.exitCode !== null || child.signalCode !== null || new Promise((resolve) => child.once('exit', resolve))));
  }
  console.log(`${passed} passed, 0 failed`);
}

main().then(
  () => { if (!process.argv.includes('--screenshots')) fs.rmSync(folder, { recursive: true }); },
  (error) => {
    console.error(error);
    console.error(fs.readFileSync(path.join(folder, 'log'), 'utf8').split('\n').slice(-30).join('\n'));
    console.log('0 passed, 1 failed');
    process.exitCode = 1;
  },
);
