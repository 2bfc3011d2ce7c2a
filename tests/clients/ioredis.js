// A broad run of ioredis (4 or newer) against the server of a URL; prints what it saw as JSON.
//
//     node ioredis.js URL [PACKAGE]
'use strict';

const package_name = process.argv[3] ?? 'ioredis';
const { default: Redis } = require(package_name);

const range = (count) => Array.from({ length: count }, (_, n) => n);

async function errorOf(call) {
  try {
    return ['no error', await call()];
  } catch (error) {
    return [error.name, error.message];
  }
}

async function run(url, options) {
  const client = new Redis(url, { maxRetriesPerRequest: 1, ...options });
  const out = { client: require(`${package_name}/package.json`).version };
  await client.flushall();
  out.ping = await client.ping();
  out.set = [await client.set('k', 'v'), await client.get('k'), await client.get('nothing')];
  out.setOptions = [await client.set('k', 'w', 'NX'), await client.set('k', 'x', 'GET')];
  const binary = Buffer.from(range(256));
  await client.set(binary, binary);
  out.binary = binary.equals(await client.getBuffer(binary));
  out.counters = [await client.incr('n'), await client.incrby('n', 5), await client.decrby('n', 2), await client.decr('n')];
  const numbers = await Promise.all(range(500).map(() => client.incr('concurrent')));
  out.concurrent = numbers.every((number, index) => number === index + 1);
  out.mset = await client.mset(Object.fromEntries(range(20).map((n) => [`m${n}`, n])));
  out.mget = await client.mget(range(20).map((n) => `m${n}`).concat('nothing'));
  out.del = [await client.del('m0', 'm1', 'm1', 'nothing'), await client.unlink('m2'), await client.exists('m3', 'm3')];
  const pipeline = client.pipeline();
  range(50).forEach((n) => pipeline.incr('piped').get('piped').set(`p${n}`, n).lpush('k', 1));
  out.pipeline = (await pipeline.exec()).map(([error, reply]) => [error && error.message, reply]);
  client.defineCommand('countIt', { numberOfKeys: 1, lua: "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}" });
  out.script = [await client.countIt('scripted', 'a'), await client.countIt('scripted', 'b')];
  out.eval = await client.eval("return redis.call('GET', KEYS[1])", 1, 'scripted');
  out.hash = [await client.hset('h', { a: 1, b: 2 }), await client.hgetall('h'), await client.hincrby('h', 'a', 3)];
  out.list = [await client.rpush('l', 1, 2, 3), await client.lrange('l', 0, -1), await client.lpop('l')];
  out.sets = [await client.sadd('s', 'a', 'b'), (await client.smembers('s')).sort()];
  out.zset = [
    await client.zadd('z', 1.5, 'a', 2, 'b'),
    await client.zrange('z', 0, -1, 'WITHSCORES'),
    await client.zscore('z', 'a'),
    await client.zpopmin('z'),
  ];
  out.expire = [await client.expire('n', 1000), (await client.ttl('n')) > 990, await client.incr('n'), await client.persist('n'), await client.ttl('n')];
  await Promise.all(range(200).map((n) => client.set(`scan:${n}`, n)));
  let scanned = 0;
  for await (const keys of client.scanStream({ match: 'scan:*', count: 10 })) scanned += keys.length;
  out.scan = scanned;
  out.dbsize = await client.dbsize();
  await client.set('text', 'abc');
  out.errors = [
    await errorOf(() => client.lpush('text', 1)),
    await errorOf(() => client.incr('text')),
    await errorOf(() => client.evalsha('f'.repeat(40), 0)),
    await errorOf(() => client.call('NOSUCH', 'a')),
    await errorOf(() => client.call('GET')),
  ];
  out.database = / db=(\d+) /.exec(await client.call('CLIENT', 'INFO'))[1];
  out.status = client.status;
  await client.quit();
  return out;
}

async function main() {
  const url = process.argv[2];
  const runs = { plain: {}, named: { connectionName: 'suite' } };
  // Version 4 fails at `call` there, before anything is sent.
  if (package_name !== 'ioredis4') runs.autoPipelining = { enableAutoPipelining: true };
  const out = {};
  for (const [name, options] of Object.entries(runs)) out[name] = await run(url, options);
  out.database = await run(`${url}/3`, {});
  console.log(JSON.stringify(out));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
