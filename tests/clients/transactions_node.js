// Transactions and waits of ioredis and node-redis against the server of a URL; prints what they
// saw as JSON. All keys share a node.
//
//     node transactions_node.js URL
'use strict';

const { default: Redis } = require('ioredis');
const { createClient } = require('redis');

async function errorOf(call) {
  try {
    return ['no error', await call()];
  } catch (error) {
    return [error.name, error.message];
  }
}

async function ofIoredis(url) {
  const client = new Redis(url, { maxRetriesPerRequest: 1 });
  const other = client.duplicate();
  await client.flushall();
  const out = {};
  out.multi = await client.multi().incr('{t}n').expire('{t}n', 1000).get('{t}n').hset('{t}h', 'f', 1).hgetall('{t}h').exec();
  out.awaited = [await client.multi({ pipeline: false }), await client.incr('{t}n'), await client.exec()];
  const failing = await client.multi().set('{t}s', 'text').incr('{t}s').get('{t}s').exec();
  out.errors = failing.map(([error, reply]) => [error && error.message, reply]);
  await client.watch('{t}n');
  await other.incr('{t}n');
  out.watched = await client.multi().set('{t}n', 0).exec();
  const popped = client.blpop('{q}a', '{q}b', 0);
  await other.rpush('{q}b', 'job');
  out.popped = await popped;
  out.timeout = await client.brpop('{q}none', 0.05);
  await Promise.all([client.quit(), other.quit()]);
  return out;
}

async function ofNodeRedis(url) {
  const client = createClient({ url });
  client.on('error', () => {});
  await client.connect();
  await client.flushAll();
  const out = {};
  out.multi = await client.multi().incr('{t}n').expire('{t}n', 1000).get('{t}n').hSet('{t}h', 'f', 1).exec();
  out.errors = await errorOf(() => client.multi().set('{t}s', 'text').incr('{t}s').exec());
  const other = client.duplicate();
  other.on('error', () => {});
  await other.connect();
  await client.watch('{t}n');
  await other.incr('{t}n');
  out.watched = await errorOf(() => client.multi().set('{t}n', 0).exec());
  const popped = client.blPop('{q}a', 0);
  await other.rPush('{q}a', 'job');
  out.popped = await popped;
  out.n = await other.get('{t}n');
  await Promise.all([client.close(), other.close()]);
  return out;
}

async function main() {
  const url = process.argv[2];
  console.log(JSON.stringify({ ioredis: await ofIoredis(url), nodeRedis: await ofNodeRedis(url) }));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
