// A broad run of node-redis (4 or newer) against the server of a URL; prints what it saw as JSON.
//
//     node node_redis.js URL [PACKAGE]
'use strict';

const package_name = process.argv[3] ?? 'redis';
const { commandOptions, createClient, RESP_TYPES } = require(package_name);
const { version } = require(`${package_name}/package.json`);

// Version 4 has another way to ask for buffers, yields keys one by one, and speaks RESP2 only.
const isFour = version.startsWith('4.');

const range = (count) => Array.from({ length: count }, (_, n) => n);

async function errorOf(call) {
  try {
    return ['no error', await call()];
  } catch (error) {
    return [error.name, error.message];
  }
}

async function run(url, options) {
  const client = createClient({ url, socket: { reconnectStrategy: false }, ...options });
  client.on('error', (error) => console.error(error));
  await client.connect();
  const out = { client: version };
  await client.flushAll();
  out.ping = await client.ping();
  out.set = [await client.set('k', 'v'), await client.get('k'), await client.get('nothing')];
  const binary = Buffer.from(range(256));
  await client.set(binary, binary);
  const stored = isFour
    ? await client.get(commandOptions({ returnBuffers: true }), binary)
    : await client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }).get(binary);
  out.binary = binary.equals(stored);
  out.counters = [await client.incr('n'), await client.incrBy('n', 5), await client.decrBy('n', 2), await client.decr('n')];
  const numbers = await Promise.all(range(500).map(() => client.incr('concurrent')));
  out.concurrent = numbers.every((number, index) => number === index + 1);
  out.mset = await client.mSet(range(20).map((n) => [`m${n}`, String(n)]));
  out.mget = await client.mGet(range(20).map((n) => `m${n}`).concat('nothing'));
  out.del = [await client.del(['m0', 'm1', 'm1', 'nothing']), await client.unlink('m2'), await client.exists(['m3', 'm3'])];
  const pipeline = client.multi();
  range(50).forEach((n) => pipeline.incr('piped').get('piped').set(`p${n}`, String(n)));
  out.pipeline = await pipeline.execAsPipeline();
  const script = { keys: ['scripted'], arguments: ['a'] };
  out.eval = [
    await client.eval("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}", script),
    await client.eval("return redis.call('GET', KEYS[1])", script),
  ];
  const sha = await client.scriptLoad('return ARGV[1]');
  out.evalsha = [sha, await client.evalSha(sha, script)];
  out.hash = [await client.hSet('h', { a: 1, b: 2 }), { ...(await client.hGetAll('h')) }, await client.hIncrBy('h', 'a', 3)];
  out.list = [await client.rPush('l', ['1', '2', '3']), await client.lRange('l', 0, -1), await client.lPop('l')];
  out.sets = [await client.sAdd('s', ['a', 'b']), [...(await client.sMembers('s'))].sort()];
  out.zset = [
    await client.zAdd('z', [{ score: 1.5, value: 'a' }, { score: 2, value: 'b' }]),
    await client.zRangeWithScores('z', 0, -1),
    await client.zScore('z', 'a'),
    await client.zPopMin('z'),
  ];
  out.expire = [await client.expire('n', 1000), (await client.ttl('n')) > 990, await client.incr('n'), await client.persist('n'), await client.ttl('n')];
  await Promise.all(range(200).map((n) => client.set(`scan:${n}`, String(n))));
  let scanned = 0;
  for await (const keys of client.scanIterator({ MATCH: 'scan:*', COUNT: 10 })) scanned += isFour ? 1 : keys.length;
  out.scan = scanned;
  out.dbsize = await client.dbSize();
  await client.set('text', 'abc');
  out.errors = [
    await errorOf(() => client.lPush('text', '1')),
    await errorOf(() => client.incr('text')),
    await errorOf(() => client.evalSha('f'.repeat(40), { keys: ['k'] })),
    await errorOf(() => client.sendCommand(['NOSUCH', 'a'])),
    await errorOf(() => client.sendCommand(['GET'])),
  ];
  out.database = / db=(\d+) /.exec(await client.sendCommand(['CLIENT', 'INFO']))[1];
  await (isFour ? client.quit() : client.close());
  return out;
}

async function main() {
  const url = process.argv[2];
  const runs = { plain: {}, named: { name: 'suite' } };
  if (!isFour) Object.assign(runs, { resp2: { RESP: 2 }, resp3: { RESP: 3 } });
  const out = {};
  for (const [name, options] of Object.entries(runs)) out[name] = await run(url, options);
  out.database = await run(`${url}/3`, {});
  console.log(JSON.stringify(out));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
