// Counters in Redis, each operation atomic there.
'use strict';

const { Redis } = require('ioredis');

// Adds one unless the counter has reached the limit; -1 if it has.
const LIMITED = `
local count = tonumber(redis.call('GET', KEYS[1]) or 0)
if count >= tonumber(ARGV[1]) then
  return -1
end
return redis.call('INCR', KEYS[1])
`;

class Counters {
  constructor(url) {
    this.redis = new Redis(url);
    this.redis.on('error', (error) => console.error(error.message));
    this.redis.defineCommand('incrementLimited', { numberOfKeys: 1, lua: LIMITED });
  }

  increment(key, amount = 1) {
    return amount === 1 ? this.redis.incr(key) : this.redis.incrby(key, amount);
  }

  decrement(key) {
    return this.redis.decr(key);
  }

  async get(key) {
    return Number(await this.redis.get(key));
  }

  // In the order of `keys`; 0 where there is none.
  async getMany(keys) {
    return keys.length === 0 ? [] : (await this.redis.mget(keys)).map(Number);
  }

  async reset(key) {
    await this.redis.set(key, 0);
  }

  // The counter ends `seconds` after its last increment.
  async incrementFor(key, seconds) {
    const replies = await this.redis.pipeline().incr(key).expire(key, seconds).exec();
    for (const [error] of replies) {
      if (error) throw error;
    }
    return replies[0][1];
  }

  // Every counter that matches, by key. For a dashboard: KEYS looks at each key there is.
  async matching(pattern) {
    const keys = await this.redis.keys(pattern);
    const values = await this.getMany(keys);
    return Object.fromEntries(keys.map((key, index) => [key, values[index]]));
  }

  // The new value, or false at the limit. Sent as EVALSHA, and as EVAL where that is unknown.
  async incrementUpTo(key, limit) {
    const count = await this.redis.incrementLimited(key, limit);
    return count === -1 ? false : count;
  }

  // The same by EVAL, as apps do that keep no script.
  async incrementUpToByEval(key, limit) {
    const count = await this.redis.eval(LIMITED, 1, key, limit);
    return count === -1 ? false : count;
  }

  async close() {
    await this.redis.quit();
  }
}

module.exports = { Counters };
