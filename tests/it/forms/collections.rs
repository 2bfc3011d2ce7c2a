//! Requests on lists, hashes, sets, sorted sets and places.

pub(super) const LISTS: &str = "
LINDEX list 1
LINDEX list 9
LINDEX missing 0
LINDEX wrong 0
LINSERT list BEFORE b x
LINSERT list BEFORE zzz x
LINSERT missing BEFORE b x
LINSERT wrong AFTER b x
LLEN list
LLEN missing
LLEN wrong
LMOVE list new LEFT RIGHT
LMOVE missing new LEFT RIGHT
LMOVE wrong new LEFT RIGHT
LMPOP 1 list LEFT
LMPOP 2 missing list RIGHT COUNT 2
LMPOP 1 missing LEFT
LMPOP 1 wrong LEFT
LMPOP 1 list LEFT COUNT 0
LPOP list
LPOP list 2
LPOP list 0
LPOP missing
LPOP missing 2
LPOP missing 0
LPOP wrong
LPOP wrong 2
LPOP list -1
LPOP list x
LPOS list b
LPOS list zzz
LPOS list b COUNT 0
LPOS list zzz COUNT 0
LPOS missing b
LPOS missing b COUNT 1
LPOS wrong b
LPUSH list x
LPUSH missing x y
LPUSH wrong x
LPUSHX list x
LPUSHX missing x
LPUSHX wrong x
LRANGE list 0 -1
LRANGE list 5 9
LRANGE missing 0 -1
LRANGE wrong 0 -1
LREM list 0 a
LREM missing 0 a
LREM wrong 0 a
LSET list 0 x
LSET list 9 x
LSET missing 0 x
LSET wrong 0 x
LTRIM list 0 0
LTRIM missing 0 0
LTRIM wrong 0 0
RPOP list
RPOP list 2
RPOP list 0
RPOP missing
RPOP missing 2
RPOP wrong
RPOPLPUSH list new
RPOPLPUSH missing new
RPOPLPUSH wrong new
RPUSH list x
RPUSH missing x
RPUSH wrong x
RPUSHX list x
RPUSHX missing x
RPUSHX wrong x
";

pub(super) const HASHES: &str = "
HDEL hash f zzz
HDEL missing f
HDEL wrong f
HEXISTS hash f
HEXISTS hash zzz
HEXISTS missing f
HEXISTS wrong f
HGET hash f
HGET hash zzz
HGET missing f
HGET wrong f
HGETALL hash
HGETALL missing
HGETALL wrong
HINCRBY hash f 2
HINCRBY hash g 2
HINCRBY missing f 2
HINCRBY wrong f 2
HINCRBYFLOAT hash f 2.5
HINCRBYFLOAT hash g 2
HINCRBYFLOAT missing f 2
HINCRBYFLOAT wrong f 2
HKEYS hash
HKEYS missing
HKEYS wrong
HLEN hash
HLEN missing
HLEN wrong
HMGET hash f zzz g
HMGET missing f
HMGET wrong f
HMSET hash a 1 b 2
HMSET missing a 1
HMSET wrong a 1
HMSET hash a 1 b
HRANDFIELD onehash
HRANDFIELD onehash 1
HRANDFIELD onehash -3
HRANDFIELD onehash 1 WITHVALUES
HRANDFIELD onehash -3 WITHVALUES
HRANDFIELD onehash 0 WITHVALUES
HRANDFIELD hash 5 WITHVALUES
HRANDFIELD onehash x
HRANDFIELD missing
HRANDFIELD missing 2
HRANDFIELD missing 2 WITHVALUES
HRANDFIELD wrong
HSCAN hash 0
HSCAN hash 0 MATCH f* COUNT 10
HSCAN hash x
HSCAN missing 0
HSCAN wrong 0
HSET hash a 1 f 2
HSET missing a 1
HSET wrong a 1
HSETNX hash f 1
HSETNX missing f 1
HSETNX wrong f 1
HSTRLEN hash g
HSTRLEN missing g
HSTRLEN wrong g
HVALS hash
HVALS missing
HVALS wrong
";

pub(super) const SETS: &str = "
SADD set a z
SADD missing a
SADD wrong a
SCARD set
SCARD missing
SCARD wrong
SDIFF set set2
SDIFF missing
SDIFF missing set
SDIFF wrong
SDIFFSTORE new set set2
SDIFFSTORE new missing
SDIFFSTORE new wrong
SINTER set set2
SINTER set missing
SINTER wrong
SINTERCARD 2 set set2
SINTERCARD 2 set set2 LIMIT 1
SINTERCARD 1 missing
SINTERCARD 1 wrong
SINTERSTORE new set set2
SINTERSTORE new missing
SINTERSTORE new wrong
SISMEMBER set a
SISMEMBER missing a
SISMEMBER wrong a
SMEMBERS set
SMEMBERS missing
SMEMBERS wrong
SMISMEMBER set a z
SMISMEMBER missing a z
SMISMEMBER wrong a
SMOVE set set2 a
SMOVE missing set2 a
SMOVE wrong set2 a
SPOP oneset
SPOP oneset 5
SPOP oneset 0
SPOP set 5
SPOP oneset -1
SPOP missing
SPOP missing 3
SPOP wrong
SRANDMEMBER oneset
SRANDMEMBER oneset 2
SRANDMEMBER oneset -3
SRANDMEMBER oneset 0
SRANDMEMBER set 5
SRANDMEMBER missing
SRANDMEMBER missing 2
SRANDMEMBER missing -2
SRANDMEMBER wrong
SREM set a z
SREM missing a
SREM wrong a
SSCAN set 0
SSCAN missing 0
SSCAN wrong 0
SUNION set set2
SUNION missing
SUNION wrong
SUNIONSTORE new set set2
SUNIONSTORE new missing
SUNIONSTORE new wrong
";

pub(super) const ZSETS: &str = "
ZADD zset 1 z
ZADD zset CH 5 a 6 new
ZADD zset INCR 1.25 a
ZADD zset NX INCR 1 a
ZADD zset GT INCR -1 a
ZADD zset INCR -inf c
ZADD zset NX XX 1 a
ZADD missing 1 a
ZADD missing INCR 1 a
ZADD missing XX INCR 1 a
ZADD wrong 1 a
ZADD zset x a
ZCARD zset
ZCARD missing
ZCARD wrong
ZCOUNT zset 0 2
ZCOUNT missing 0 2
ZCOUNT wrong 0 2
ZDIFF 2 zset zset2
ZDIFF 2 zset zset2 WITHSCORES
ZDIFF 1 zset WITHSCORES
ZDIFF 1 missing WITHSCORES
ZDIFF 1 wrong
ZDIFFSTORE new 2 zset zset2
ZDIFFSTORE new 1 missing
ZDIFFSTORE new 1 wrong
ZINCRBY zset 0.1 a
ZINCRBY zset 1 c
ZINCRBY zset -inf c
ZINCRBY zset 1e300 a
ZINCRBY missing 3 a
ZINCRBY wrong 3 a
ZINTER 2 zset zset2
ZINTER 2 zset zset2 WITHSCORES
ZINTER 2 zset zset2 WEIGHTS 0.5 0.1 AGGREGATE MIN WITHSCORES
ZINTER 2 zset missing WITHSCORES
ZINTER 1 wrong
ZINTERCARD 2 zset zset2
ZINTERCARD 1 missing
ZINTERCARD 1 wrong
ZINTERSTORE new 2 zset zset2
ZINTERSTORE new 1 missing
ZINTERSTORE new 1 wrong
ZLEXCOUNT lex - +
ZLEXCOUNT missing - +
ZLEXCOUNT wrong - +
ZMPOP 1 zset MIN
ZMPOP 2 missing zset MAX COUNT 2
ZMPOP 1 zset MIN COUNT 9
ZMPOP 1 missing MIN
ZMPOP 1 wrong MIN
ZMSCORE zset a zzz c
ZMSCORE missing a b
ZMSCORE wrong a
ZPOPMAX zset
ZPOPMAX zset 2
ZPOPMAX zset 1
ZPOPMAX missing
ZPOPMAX missing 2
ZPOPMAX wrong
ZPOPMIN zset
ZPOPMIN zset 2
ZPOPMIN zset 0
ZPOPMIN zset -1
ZPOPMIN missing
ZPOPMIN missing 2
ZPOPMIN wrong
ZRANDMEMBER onezset
ZRANDMEMBER onezset 1
ZRANDMEMBER onezset -2
ZRANDMEMBER onezset 1 WITHSCORES
ZRANDMEMBER onezset -2 WITHSCORES
ZRANDMEMBER zset 9 WITHSCORES
ZRANDMEMBER onezset 0 WITHSCORES
ZRANDMEMBER missing
ZRANDMEMBER missing 2 WITHSCORES
ZRANDMEMBER wrong
ZRANGE zset 0 -1
ZRANGE zset 0 -1 WITHSCORES
ZRANGE zset 0 -1 REV WITHSCORES
ZRANGE zset 1 (3 BYSCORE LIMIT 0 1 WITHSCORES
ZRANGE lex [a (c BYLEX
ZRANGE lex - + BYLEX WITHSCORES
ZRANGE zset 9 10 WITHSCORES
ZRANGE missing 0 -1
ZRANGE missing 0 -1 WITHSCORES
ZRANGE wrong 0 -1
ZRANGEBYLEX lex - +
ZRANGEBYLEX lex - + LIMIT 1 1
ZRANGEBYLEX missing - +
ZRANGEBYLEX wrong - +
ZRANGEBYSCORE zset -inf +inf
ZRANGEBYSCORE zset -inf +inf WITHSCORES
ZRANGEBYSCORE zset 1 3 WITHSCORES LIMIT 1 1
ZRANGEBYSCORE missing 1 2 WITHSCORES
ZRANGEBYSCORE wrong 1 2
ZRANGESTORE new zset 0 -1
ZRANGESTORE new missing 0 -1
ZRANGESTORE new wrong 0 -1
ZRANK zset b
ZRANK zset zzz
ZRANK missing b
ZRANK wrong b
ZREM zset a zzz
ZREM missing a
ZREM wrong a
ZREMRANGEBYLEX lex - +
ZREMRANGEBYLEX missing - +
ZREMRANGEBYLEX wrong - +
ZREMRANGEBYRANK zset 0 0
ZREMRANGEBYRANK missing 0 0
ZREMRANGEBYRANK wrong 0 0
ZREMRANGEBYSCORE zset 0 2
ZREMRANGEBYSCORE missing 0 2
ZREMRANGEBYSCORE wrong 0 2
ZREVRANGE zset 0 -1
ZREVRANGE zset 0 -1 WITHSCORES
ZREVRANGE missing 0 -1 WITHSCORES
ZREVRANGE wrong 0 -1
ZREVRANGEBYLEX lex + -
ZREVRANGEBYLEX missing + -
ZREVRANGEBYLEX wrong + -
ZREVRANGEBYSCORE zset +inf -inf
ZREVRANGEBYSCORE zset +inf -inf WITHSCORES
ZREVRANGEBYSCORE missing 2 1 WITHSCORES
ZREVRANGEBYSCORE wrong 2 1
ZREVRANK zset b
ZREVRANK zset zzz
ZREVRANK missing b
ZREVRANK wrong b
ZSCAN zset 0
ZSCAN missing 0
ZSCAN wrong 0
ZSCORE zset a
ZSCORE zset c
ZADD zset 0.1 a | ZSCORE zset a
ZADD zset 1e20 a | ZSCORE zset a
ZADD zset 123456789012345678 a | ZSCORE zset a
ZADD zset -inf a | ZSCORE zset a
ZADD zset -0 a | ZSCORE zset a
ZSCORE zset zzz
ZSCORE missing a
ZSCORE wrong a
ZUNION 2 zset zset2
ZUNION 2 zset zset2 WITHSCORES
ZUNION 1 missing WITHSCORES
ZUNION 1 wrong
ZUNIONSTORE new 2 zset zset2 WEIGHTS 1 2
ZUNIONSTORE new 1 missing
ZUNIONSTORE new 1 wrong
";

pub(super) const GEO: &str = "
GEOADD geo 1 1 x
GEOADD geo XX CH 1 1 x
GEOADD geo 999 1 x
GEOADD missing 1 1 x
GEOADD wrong 1 1 x
GEODIST geo Palermo Catania
GEODIST geo Palermo Catania km
GEODIST geo Palermo zzz
GEODIST missing a b
GEODIST wrong a b
GEOHASH geo Palermo zzz Catania
GEOHASH geo
GEOHASH missing a b
GEOHASH wrong a
GEOPOS geo Palermo zzz Catania
GEOPOS geo
GEOPOS missing a b
GEOPOS wrong a
GEORADIUS geo 15 37 200 km
GEORADIUS geo 15 37 200 km WITHDIST WITHCOORD WITHHASH ASC
GEORADIUS geo 15 37 200 km STORE new
GEORADIUS geo 15 37 1 m WITHCOORD
GEORADIUS missing 15 37 200 km WITHCOORD
GEORADIUS missing 15 37 200 km STORE new
GEORADIUS wrong 15 37 200 km
GEORADIUS_RO geo 15 37 200 km WITHCOORD
GEORADIUS_RO missing 15 37 200 km
GEORADIUS_RO wrong 15 37 200 km
GEORADIUSBYMEMBER geo Palermo 200 km WITHDIST WITHCOORD
GEORADIUSBYMEMBER geo zzz 200 km
GEORADIUSBYMEMBER missing Palermo 200 km
GEORADIUSBYMEMBER wrong Palermo 200 km
GEORADIUSBYMEMBER_RO geo Palermo 200 km WITHCOORD COUNT 1
GEORADIUSBYMEMBER_RO missing Palermo 200 km
GEORADIUSBYMEMBER_RO wrong Palermo 200 km
GEOSEARCH geo FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHDIST WITHHASH
GEOSEARCH geo FROMMEMBER Palermo BYBOX 400 400 km ASC
GEOSEARCH missing FROMMEMBER Palermo BYRADIUS 1 km
GEOSEARCH wrong FROMMEMBER Palermo BYRADIUS 1 km
GEOSEARCHSTORE new geo FROMMEMBER Palermo BYRADIUS 200 km
GEOSEARCHSTORE new missing FROMMEMBER Palermo BYRADIUS 200 km
GEOSEARCHSTORE new wrong FROMMEMBER Palermo BYRADIUS 200 km
";
