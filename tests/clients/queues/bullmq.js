// BullMQ against the server of a URL; prints what it saw as JSON. Its keys have no hash tags.
//
//     node bullmq.js URL
'use strict';

const { Redis } = require('ioredis5');
const { FlowProducer, Queue, QueueEvents, Worker } = require('bullmq');

async function main(url) {
  const { hostname: host, port } = new URL(url);
  const connection = { host, port: Number(port), maxRetriesPerRequest: null };
  const client = new Redis(connection);
  await client.flushall();
  const errors = [];
  const made = [];
  const of = (Class, ...rest) => {
    const one = new Class(...rest);
    one.on('error', (error) => errors.push(error.message));
    made.unshift(one);
    return one;
  };
  const queue = of(Queue, 'mail', { connection });
  const events = of(QueueEvents, 'mail', { connection });
  const parents = of(QueueEvents, 'parents', { connection });
  const flows = of(FlowProducer, { connection });
  of(Worker, 'mail', async (job) => {
    if (job.name === 'bad' && job.attemptsMade === 0) throw new Error('once');
    if (job.name === 'hopeless') throw new Error('always');
    await job.updateProgress(50);
    return job.data.n * 2;
  }, { connection, concurrency: 2 });
  of(Worker, 'parents', async (job) => Object.values(await job.getChildrenValues()).sort(), { connection });
  await Promise.all([events.waitUntilReady(), parents.waitUntilReady()]);

  const out = {};
  const done = async (job, seen = events) => job.waitUntilFinished(seen, LIMIT_MS);
  const jobs = await queue.addBulk([0, 1, 2, 3].map((n) => ({ name: 'double', data: { n } })));
  out.bulk = await Promise.all(jobs.map((job) => done(job)));
  out.delayed = await done(await queue.add('double', { n: 5 }, { delay: 100 }));
  out.priority = await done(await queue.add('double', { n: 6 }, { priority: 2 }));
  out.retried = await done(await queue.add('bad', { n: 7 }, { attempts: 2, backoff: 50 }));
  out.failed = await done(await queue.add('hopeless', {})).catch((error) => error.message);
  const child = (n) => ({ name: 'double', data: { n }, queueName: 'mail' });
  const flow = await flows.add({ name: 'all', queueName: 'parents', children: [child(1), child(2)] });
  out.flow = await done(flow.job, parents);
  out.counts = await queue.getJobCounts('completed', 'failed', 'waiting', 'active');
  await queue.pause();
  await queue.add('double', { n: 1 });
  const held = await queue.getJobCounts('paused', 'waiting');
  out.held = held.paused + held.waiting;
  await queue.obliterate({ force: true });
  out.left = (await client.keys('bull:mail:*')).length;
  for (const one of made) await one.close();
  await client.quit();
  out.errors = errors;
  console.log(JSON.stringify(out, null, 1));
}

// More than any of it takes.
const LIMIT_MS = 20_000;

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
