// rate-limiter-flexible against the server of a URL; prints what it saw as JSON. Without `get`, `set`
// and `block`, which are transactions.
import { Redis } from 'ioredis';
import { RateLimiterRedis } from 'rate-limiter-flexible';

const range = (count) => Array.from({ length: count }, (_, n) => n);
const duration = 60;

// How much of the window is left differs by a little from run to run.
function seen(result) {
  if (result instanceof Error) return [result.name, result.message.replace(/ script:.*/, '')];
  const { remainingPoints, consumedPoints, isFirstInDuration, msBeforeNext } = result;
  const left = msBeforeNext > (duration - 10) * 1000 && msBeforeNext <= duration * 1000 ? 'window' : msBeforeNext;
  return { remainingPoints, consumedPoints, isFirstInDuration, left };
}

// A denial rejects with the same kind of result.
const outcome = (promise) => promise.then((result) => ['allowed', seen(result)], (result) => ['denied', seen(result)]);

const client = new Redis(process.argv[2], { maxRetriesPerRequest: 1 });
await client.flushall();
const limiter = new RateLimiterRedis({ storeClient: client, points: 5, duration, keyPrefix: 'points' });

const out = {};
out.consumed = [];
for (const points of [1, 2, 1, 1, 1, 3]) out.consumed.push(await outcome(limiter.consume('a', points)));
out.got = await client.get('points:a');
out.penalty = await outcome(limiter.penalty('b', 2));
out.reward = await outcome(limiter.reward('b', 5));
const burst = await Promise.all(range(80).map((n) => outcome(limiter.consume(`user-${n % 4}`))));
out.burst = range(4).map((user) => burst.filter((_, n) => n % 4 === user));
out.deleted = [await limiter.delete('a'), await limiter.delete('a'), await outcome(limiter.consume('a'))];
// A counter without a deadline gets one.
await client.set('points:forever', 2);
out.forever = [await outcome(limiter.consume('forever')), (await client.pttl('points:forever')) > 0];
out.mixed = [await client.incrby('points:b', 3), await outcome(limiter.consume('b')), await client.get('points:b')];
await client.set('points:text', 'x');
out.error = await outcome(limiter.consume('text'));
await client.script('FLUSH');
out.flushed = await outcome(limiter.consume('b'));
console.log(JSON.stringify(out));
await client.quit();
