// Article views and likes, a rate limit, votes and a dashboard, over HTTP.
//
//     REDIS_URL=redis://localhost:6379 node server.js
//
// REDIS_URL is all that it knows of its server. PORT is 3000 unless given; 0 takes a free one.
'use strict';

const express = require('express');

const { Counters } = require('./counters');

const CALLS_PER_HOUR = 1000;
const HOUR_SECONDS = 3600;
const VOTE_SECONDS = 30 * 24 * HOUR_SECONDS;

const counters = new Counters(process.env.REDIS_URL || 'redis://localhost:6379');
const app = express();
app.use(express.json());

app.post('/articles/:id/view', async (request, response) => {
  const { id } = request.params;
  const views = await counters.increment(`article:${id}:views`);
  response.json({ articleId: id, views, message: 'View counted' });
});

app.post('/articles/:id/like', async (request, response) => {
  const { id } = request.params;
  const likes = await counters.increment(`article:${id}:likes`);
  response.json({ articleId: id, likes, message: 'Article liked' });
});

app.post('/articles/:id/unlike', async (request, response) => {
  const { id } = request.params;
  const likes = await counters.decrement(`article:${id}:likes`);
  response.json({ articleId: id, likes: Math.max(0, likes), message: 'Article unliked' });
});

app.get('/articles/:id/stats', async (request, response) => {
  const { id } = request.params;
  const keys = ['views', 'likes', 'shares'].map((kind) => `article:${id}:${kind}`);
  const [views, likes, shares] = await counters.getMany(keys);
  const rate = views > 0 ? `${(((likes + shares) / views) * 100).toFixed(2)}%` : '0%';
  response.json({ articleId: id, stats: { views, likes, shares, engagement_rate: rate } });
});

app.post('/api/call', async (request, response) => {
  const caller = request.get('x-api-key') || 'anonymous';
  const calls = await counters.incrementFor(`api:${caller}:calls:${hour(new Date())}`, HOUR_SECONDS);
  const answer = {
    limit: CALLS_PER_HOUR,
    remaining: Math.max(0, CALLS_PER_HOUR - calls),
    reset_at: nextHour(new Date()),
  };
  if (calls > CALLS_PER_HOUR) {
    response.status(429).json({ error: 'Rate limit exceeded', ...answer });
  } else {
    response.json({ message: 'API call counted', ...answer });
  }
});

app.post('/posts/:id/upvote', async (request, response) => {
  const { id } = request.params;
  const user = request.get('x-user-id') || 'anonymous';
  const voted = `user:${user}:votes:post:${id}`;
  // The increment's reply decides, not a read before it: two votes at once are one.
  if ((await counters.incrementFor(voted, VOTE_SECONDS)) > 1) {
    response.status(400).json({ error: 'You already voted on this post' });
    return;
  }
  const upvotes = await counters.increment(`post:${id}:upvotes`);
  response.json({ postId: id, upvotes, message: 'Upvoted successfully' });
});

app.get('/dashboard', async (_request, response) => {
  const groups = { article_views: {}, article_likes: {}, post_upvotes: {}, api_calls: {} };
  const found = await counters.matching('*:*');
  for (const key of Object.keys(found).sort()) {
    const group = groups[groupOf(key)];
    if (group) group[key] = found[key];
  }
  response.json(groups);
});

// Express hands over what a handler threw.
app.use((error, _request, response, _next) => {
  console.error(error);
  response.status(500).json({ error: error.message });
});

function groupOf(key) {
  if (key.endsWith(':views')) return 'article_views';
  if (key.endsWith(':likes')) return 'article_likes';
  if (key.endsWith(':upvotes')) return 'post_upvotes';
  return key.startsWith('api:') ? 'api_calls' : undefined;
}

function hour(date) {
  return `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}-${date.getHours()}`;
}

function nextHour(date) {
  const next = new Date(date);
  next.setHours(next.getHours() + 1, 0, 0, 0);
  return next.toISOString();
}

const listener = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${listener.address().port}`);
});

process.on('SIGTERM', () => {
  listener.close(async () => {
    await counters.close();
  });
  listener.closeAllConnections();
});
