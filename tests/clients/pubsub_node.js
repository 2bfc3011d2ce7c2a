// Pub/sub of ioredis and node-redis against the server of a URL; prints what they saw as JSON.
'use strict';

const url = process.argv[2];
const out = {};

// What arrives, and a promise of the first `count` of it.
function inbox() {
  const items = [];
  const waiting = [];
  const look = () => {
    for (let at = waiting.length - 1; at >= 0; at -= 1) {
      if (items.length >= waiting[at].count) waiting.splice(at, 1)[0].done(items.slice());
    }
  };
  return {
    push: (...item) => { items.push(item); look(); },
    first: (count) => new Promise((done) => { waiting.push({ count, done }); look(); }),
  };
}

async function ioredis(version) {
  const Redis = require(version);
  const client = new Redis(url);
  const subscriber = new Redis(url);
  const seen = inbox();
  subscriber.on('message', (channel, text) => seen.push('message', channel, text));
  subscriber.on('pmessage', (pattern, channel, text) => seen.push('pmessage', pattern, channel, text));
  const result = { subscribed: [await subscriber.subscribe('a', 'b'), await subscriber.psubscribe('a*')] };
  result.refused = await subscriber.get('x').catch((error) => error.message);
  result.published = [await client.publish('a', '1'), await client.publish('b', '2'), await client.publish('c', '3')];
  result.seen = await seen.first(3);
  result.left = [await subscriber.unsubscribe('a'), await subscriber.punsubscribe('a*'), await subscriber.unsubscribe('b')];
  result.after = [await client.publish('a', '4'), await subscriber.get('nothing')];
  subscriber.disconnect();
  client.disconnect();
  return result;
}

async function nodeRedis(version, options) {
  const { createClient } = require(version);
  const client = await createClient({ url, ...options }).connect();
  const subscriber = await client.duplicate().connect();
  const seen = inbox();
  await subscriber.subscribe('a', (text, channel) => seen.push('a', channel, text));
  await subscriber.pSubscribe('b*', (text, channel) => seen.push('b*', channel, text));
  await subscriber.sSubscribe('s', (text, channel) => seen.push('s', channel, text));
  const result = { published: [await client.publish('a', '1'), await client.publish('bb', '2'), await client.sPublish('s', '3')] };
  result.seen = (await seen.first(3)).sort();
  await subscriber.unsubscribe('a');
  await subscriber.pUnsubscribe();
  await subscriber.sUnsubscribe('s');
  result.after = [await client.publish('a', '4'), await client.publish('bb', '5')];
  await subscriber.disconnect();
  await client.disconnect();
  return result;
}

async function main() {
  for (const version of ['ioredis', 'ioredis5', 'ioredis4']) out[version] = await ioredis(version);
  for (const version of ['redis', 'redis4']) out[version] = await nodeRedis(version, {});
  out.resp3 = await nodeRedis('redis', { RESP: 3 });
  console.log(JSON.stringify(out, null, 1));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
