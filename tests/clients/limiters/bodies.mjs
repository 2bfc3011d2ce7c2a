// The scripts of the installed rate limiters, one a line: name, tab, body in hexadecimal.
import { createHash } from 'node:crypto';
import { RedisStore } from 'rate-limit-redis';
import { RateLimiterRedis } from 'rate-limiter-flexible';

const print = (name, body) => console.log(`${name}\t${Buffer.from(body).toString('hex')}`);

const sendCommand = async (command, subcommand, body) => {
  if (command !== 'SCRIPT') return [1, 1000];
  print('rate-limit-redis', body);
  return createHash('sha1').update(body).digest('hex');
};
await new RedisStore({ sendCommand }).init({ windowMs: 1000 });

const storeClient = { defineCommand: (name, { lua }) => print('rate-limiter-flexible', lua) };
new RateLimiterRedis({ storeClient, points: 1, duration: 1 });
