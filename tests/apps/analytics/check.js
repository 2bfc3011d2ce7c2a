// Runs the analytics app against the server of a URL, and holds its answers to its document.
//
//     node check.js redis://localhost:6379 [INCREMENTS]
//
// The server is emptied first. Prints what was checked; ends with 1 at the first difference.
// INCREMENTS is the number for the benchmark, 100,000 unless given.
'use strict';

const assert = require('node:assert/strict');
const { execFileSync, spawn } = require('node:child_process');
const { once } = require('node:events');
const path = require('node:path');
const readline = require('node:readline');

const { Redis } = require('ioredis');

const { Counters } = require('./counters');

const range = (count) => Array.from({ length: count }, (_, n) => n);

function check(what, actual, expected) {
  assert.deepEqual(actual, expected, what);
  console.log(`${what}: ok`);
}

async function withApp(url, use) {
  const app = spawn(process.execPath, [path.join(__dirname, 'server.js')], {
    env: { ...process.env, REDIS_URL: url, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(app, 'exit');
  try {
    const [base] = await once(readline.createInterface({ input: app.stdout }), 'line');
    const call = (method) => async (route, headers = {}) => {
      const response = await fetch(base + route, { method, headers });
      return { status: response.status, ...(await response.json()) };
    };
    await use({ get: call('GET'), post: call('POST') });
  } finally {
    app.kill('SIGTERM');
    await ended;
  }
}

async function checkArticles({ get, post }) {
  const views = [];
  for (const _ of range(5)) views.push(await post('/articles/1/view'));
  const fifth = { status: 200, articleId: '1', views: 5, message: 'View counted' };
  check('the fifth view', views.at(-1), fifth);
  for (const _ of range(2)) await post('/articles/1/like');
  const liked = { status: 200, articleId: '1', likes: 3, message: 'Article liked' };
  check('the third like', await post('/articles/1/like'), liked);
  const unliked = { status: 200, articleId: '1', likes: 2, message: 'Article unliked' };
  check('an unlike', await post('/articles/1/unlike'), unliked);
  const stats = { views: 5, likes: 2, shares: 0, engagement_rate: '40.00%' };
  check('the stats', await get('/articles/1/stats'), { status: 200, articleId: '1', stats });
  const none = { views: 0, likes: 0, shares: 0, engagement_rate: '0%' };
  check('stats of nothing', (await get('/articles/2/stats')).stats, none);
  check('no likes below 0', (await post('/articles/2/unlike')).likes, 0);
}

async function checkRace({ get, post }) {
  const replies = await Promise.all(range(100).map(() => post('/articles/race-test/view')));
  const seen = replies.map((reply) => reply.views).sort((a, b) => a - b);
  check('100 views at once, each with its own number', seen, range(100).map((n) => n + 1));
  check('and all of them counted', (await get('/articles/race-test/stats')).stats.views, 100);
}

async function checkRateLimit({ post }, redis) {
  const key = { 'x-api-key': 'test-key-123' };
  // The counter is of the hour: not begun in its last seconds.
  const left = 3_600_000 - (Date.now() % 3_600_000);
  if (left < 10_000) await new Promise((resolve) => setTimeout(resolve, left));
  const first = await post('/api/call', key);
  assert.match(first.reset_at, /T\d\d:\d\d:00\.000Z$/);
  const counted = { status: 200, message: 'API call counted', limit: 1000 };
  check('the first call', first, { ...counted, remaining: 999, reset_at: first.reset_at });
  for (const batch of range(10)) {
    await Promise.all(range(batch === 9 ? 98 : 100).map(() => post('/api/call', key)));
  }
  const { reset_at } = first;
  check('call 1000', await post('/api/call', key), { ...counted, remaining: 0, reset_at });
  const refused = { status: 429, error: 'Rate limit exceeded', limit: 1000, remaining: 0, reset_at };
  check('call 1001', await post('/api/call', key), refused);
  check('another key', (await post('/api/call')).remaining, 999);
  const [name] = await redis.keys('api:test-key-123:calls:*');
  const ttl = await redis.ttl(name);
  check('the counter ends in an hour', ttl > 3500 && ttl <= 3600, true);
}

async function checkVotes({ post }, redis) {
  const vote = (user) => post('/posts/123/upvote', { 'x-user-id': user });
  const voted = { status: 200, postId: '123', message: 'Upvoted successfully' };
  check('a vote', await vote('user1'), { ...voted, upvotes: 1 });
  const again = { status: 400, error: 'You already voted on this post' };
  check('the same user again', await vote('user1'), again);
  check('another user', await vote('user2'), { ...voted, upvotes: 2 });
  const atOnce = await Promise.all(range(10).map(() => vote('user3')));
  const accepted = atOnce.filter((reply) => reply.status === 200);
  check('one of ten votes at once', accepted, [{ ...voted, upvotes: 3 }]);
  const ttl = await redis.ttl('user:user1:votes:post:123');
  check('a vote is remembered for 30 days', ttl > 2_591_900 && ttl <= 2_592_000, true);
}

async function checkDashboard({ get }) {
  const { api_calls, ...others } = await get('/dashboard');
  check('the dashboard', others, {
    status: 200,
    article_views: { 'article:1:views': 5, 'article:race-test:views': 100 },
    article_likes: { 'article:1:likes': 2, 'article:2:likes': -1 },
    post_upvotes: { 'post:123:upvotes': 3 },
  });
  check('its API calls', Object.values(api_calls).sort(), [1, 1001]);
}

async function checkCounters(url) {
  const counters = new Counters(url);
  check('increment by', await counters.increment('article:1:claps', 7), 7);
  await counters.reset('article:1:claps');
  check('reset', await counters.get('article:1:claps'), 0);
  for (const way of ['incrementUpTo', 'incrementUpToByEval']) {
    const results = await Promise.all(range(30).map(() => counters[way](`limited:${way}`, 20)));
    const granted = results.filter((result) => result !== false).sort((a, b) => a - b);
    check(`${way} grants as many as the limit`, granted, range(20).map((n) => n + 1));
    check(`${way} leaves the counter at the limit`, await counters.get(`limited:${way}`), 20);
  }
  await counters.close();
}

async function main() {
  const [url, increments = '100000'] = process.argv.slice(2);
  const redis = new Redis(url);
  await redis.flushall();
  await withApp(url, async (app) => {
    await checkArticles(app);
    await checkRace(app);
    await checkRateLimit(app, redis);
    await checkVotes(app, redis);
    await checkDashboard(app);
  });
  await checkCounters(url);
  await redis.quit();
  const environment = { ...process.env, REDIS_URL: url };
  const options = { env: environment, encoding: 'utf8' };
  const text = execFileSync(process.execPath, [path.join(__dirname, 'benchmark.js'), increments], options);
  const [first] = text.split(' in ');
  check('the benchmark', first, `${increments} INCR operations`);
}

main();
