// How many INCRs per second one client gets that awaits each reply.
//
//     REDIS_URL=redis://localhost:6379 node benchmark.js [COUNT]
'use strict';

const { Redis } = require('ioredis');

async function main() {
  const count = Number(process.argv[2] ?? 100_000);
  const redis = new Redis(process.env.REDIS_URL || 'redis://localhost:6379');
  await redis.set('benchmark:counter', 0);
  const start = process.hrtime.bigint();
  let last = 0;
  for (let n = 0; n < count; n += 1) last = await redis.incr('benchmark:counter');
  const ms = Number(process.hrtime.bigint() - start) / 1e6;
  const stored = Number(await redis.get('benchmark:counter'));
  console.log(`${count} INCR operations in ${ms.toFixed(0)} ms`);
  console.log(`Throughput: ${((count / ms) * 1000).toFixed(0)} ops/sec`);
  await redis.quit();
  if (last !== count || stored !== count) {
    console.error(`the last reply was ${last} and the counter is ${stored}, not ${count}`);
    process.exitCode = 1;
  }
}

main();
