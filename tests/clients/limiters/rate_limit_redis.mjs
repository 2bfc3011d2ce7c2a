// rate-limit-redis against the server of a URL; prints what it saw as JSON.
import { Redis } from 'ioredis';
import { RedisStore } from 'rate-limit-redis';

const range = (count) => Array.from({ length: count }, (_, n) => n);
const windowMs = 60_000;

// How much of the window is left differs by a little from run to run.
function seen({ totalHits, resetTime }) {
  const left = resetTime.getTime() - Date.now();
  const ttl = left > windowMs - 10_000 && left <= windowMs + 1000 ? 'window' : left;
  return [totalHits, totalHits ? ttl : 'none'];
}

const client = new Redis(process.argv[2], { maxRetriesPerRequest: 1 });
await client.flushall();
const store = new RedisStore({ prefix: 'hits:', sendCommand: (...args) => client.call(...args) });
await store.init({ windowMs });

const out = {};
out.get = seen(await store.get('a'));
out.hits = [];
for (const _ of range(5)) out.hits.push(seen(await store.increment('a')));
out.got = seen(await store.get('a'));
const burst = await Promise.all(range(200).map((n) => store.increment(`user-${n % 4}`)));
out.burst = range(4).map((user) => burst.filter((_, n) => n % 4 === user).map(seen));
await store.decrement('a');
out.decremented = [seen(await store.get('a')), seen(await store.increment('a'))];
await store.resetKey('a');
out.reset = [seen(await store.get('a')), seen(await store.increment('a'))];
// A counter without a deadline starts a window.
await client.set('hits:forever', 41);
out.forever = [seen(await store.increment('forever')), seen(await store.increment('forever'))];
await client.incrby('hits:a', 10);
out.mixed = [await client.get('hits:a'), seen(await store.increment('a')), await client.incr('hits:a')];
const errorOf = (promise) => promise.then(seen, (error) => [error.name, error.message.replace(/ script:.*/, '')]);
await client.set('hits:text', 'x', 'PX', windowMs);
out.error = await errorOf(store.increment('text'));
await client.script('FLUSH');
out.flushed = seen(await store.increment('a'));
console.log(JSON.stringify(out));
await client.quit();
