//! The requests whose replies are compared, and the data that they meet.

use super::collections::{GEO, HASHES, LISTS, SETS, ZSETS};

/// `wrong` is a string for all but commands on strings, `wronglist` a list for those.
pub(super) const FIXTURE: &str = "
SET num 10
SET str hello
SET str2 hallo
SET wrong string
RPUSH wronglist a b
RPUSH list a b c
RPUSH nums 3 1 2
HSET hash f 1 g two
HSET onehash f 1
SADD set a b c
SADD set2 b c d
SADD oneset a
ZADD zset 1 a 2.5 b inf c
ZADD zset2 3 b 4 c
ZADD onezset 1.5 a
ZADD lex 0 a 0 b 0 c
GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
PFADD hll a b c
XADD stream 1-1 f 1 g 2
XADD stream 2-1 f 3
XGROUP CREATE stream grp 0
XGROUP CREATE stream idle 0
XREADGROUP GROUP grp con COUNT 1 STREAMS stream >
";

pub(super) const CASES: &[&str] = &[
    GENERIC, STRINGS, LISTS, HASHES, SETS, ZSETS, GEO, STREAMS, SCRIPTS, NODES, LATER,
];

const GENERIC: &str = "
COPY str new
COPY str str2
COPY str str2 REPLACE
COPY missing new
COPY str str
DEL str num missing
DEL missing
DUMP str
DUMP list
DUMP missing
EXISTS str str missing
EXPIRE str 100
EXPIRE str 100 XX
EXPIRE str x
EXPIRE str 1 NX XX
EXPIRE missing 100
EXPIREAT str 33177117420
EXPIREAT missing 33177117420
EXPIREAT str 33177117420 BAD
EXPIREAT str 33177117420; | EXPIRETIME str
EXPIRETIME str
EXPIRETIME missing
OBJECT ENCODING num
OBJECT ENCODING str
OBJECT ENCODING missing
OBJECT FREQ str
OBJECT FREQ missing
~OBJECT IDLETIME str
OBJECT IDLETIME missing
OBJECT REFCOUNT str
OBJECT REFCOUNT missing
OBJECT HELP
PERSIST str
EXPIRE str 100 | PERSIST str
PERSIST missing
PEXPIRE str 100000
PEXPIRE missing 1
PEXPIREAT str 33177117420000
PEXPIREAT missing 1
PEXPIREAT str 33177117420000 | PEXPIRETIME str
PEXPIRETIME missing
PTTL str
PTTL missing
RENAME str new
RENAME missing new
RENAMENX str new
RENAMENX str str2
RENAMENX missing new
RESTORE str 0 x
RESTORE new -1 x
RESTORE missing 0 x
SORT nums
SORT nums DESC LIMIT 0 2
SORT nums BY nosort GET # GET w_*
SET w_1 x | SORT nums GET w_* GET hash->f
SORT nums STORE new
SORT list
SORT list ALPHA
SORT missing
SORT missing STORE new
SORT wrong
SORT_RO nums GET # GET w_*
SORT_RO missing
SORT_RO wrong
TOUCH str missing
TTL str
TTL missing
TYPE str
TYPE stream
TYPE missing
UNLINK str missing list
MEMORY USAGE num
MEMORY USAGE list SAMPLES 0
MEMORY USAGE missing
MEMORY HELP
MEMORY DOCTOR
~MEMORY STATS
MEMORY PURGE
SAVE
BGSAVE never
LOLWUT
LOLWUT VERSION 5 1 1 1
MODULE LIST
";

const STRINGS: &str = "
APPEND str x
APPEND missing x
APPEND wronglist x
BITCOUNT str
BITCOUNT str 0 1 BIT
BITCOUNT missing
BITCOUNT wronglist
BITFIELD num GET u8 0 SET u4 0 1 OVERFLOW FAIL INCRBY u2 0 3
BITFIELD num OVERFLOW FAIL INCRBY u2 0 3 INCRBY u2 0 3
BITFIELD missing GET u8 0
BITFIELD wronglist GET u8 0
BITFIELD_RO str GET i8 0 GET u4 #1
BITFIELD_RO missing GET u8 0
BITFIELD_RO wronglist GET u8 0
BITFIELD_RO str SET u8 0 1
BITOP AND new str str2
BITOP NOT new missing
BITOP OR new wronglist
BITPOS str 1
BITPOS missing 1
BITPOS wronglist 1
DECR num
DECR missing
DECR wronglist
DECR str
DECRBY num 3
DECRBY num -9223372036854775808
DECRBY missing 3
DECRBY wronglist 3
GET str
GET num
GET missing
GET wronglist
GETBIT str 1
GETBIT missing 1
GETBIT wronglist 1
GETDEL str
GETDEL missing
GETDEL wronglist
GETEX str
GETEX str EX 100
GETEX str PERSIST
GETEX str BAD
GETEX missing
GETEX wronglist
GETRANGE str 1 2
GETRANGE missing 0 -1
GETRANGE wronglist 0 -1
GETSET str x
GETSET missing x
GETSET wronglist x
INCR num
INCR missing
INCR wronglist
INCR str
SET num 9223372036854775807 | INCR num
INCRBY num 5
INCRBY num x
INCRBY missing 5
INCRBY wronglist 5
INCRBYFLOAT num 1.5
INCRBYFLOAT missing 3.0e3
INCRBYFLOAT wronglist 1
INCRBYFLOAT str 1
LCS str str2
LCS str str2 LEN
LCS str str2 IDX
LCS str str2 IDX MINMATCHLEN 2 WITHMATCHLEN
LCS str missing IDX
LCS missing missing
LCS str wronglist
LCS str str2 LEN IDX
MGET str num missing wronglist
MGET missing
MSET a 1 b 2
MSETNX a 1 missing 2
MSETNX a 1 str 2
PSETEX str 100000 x
PSETEX missing 1000 x
PSETEX str 0 x
SET str x
SET str x NX
SET missing x XX
SET str x GET
SET missing x GET
SET missing x NX GET
SET wronglist x GET
SET str x EX 0
SET str x BAD
SETBIT str 1 0
SETBIT missing 1 1
SETBIT wronglist 1 1
SETBIT str 1 2
SETEX str 100 x
SETEX missing 100 x
SETNX str x
SETNX missing x
SETRANGE str 1 x
SETRANGE missing 1 x
SETRANGE wronglist 1 x
STRLEN str
STRLEN missing
STRLEN wronglist
SUBSTR str 1 2
SUBSTR missing 1 2
SUBSTR wronglist 1 2
PFADD hll z
PFADD missing z
PFADD wrong z
PFCOUNT hll
PFCOUNT hll missing
PFCOUNT missing
PFCOUNT wrong
PFDEBUG ENCODING hll
PFDEBUG GETREG hll
PFDEBUG TODENSE hll
PFDEBUG ENCODING missing
PFDEBUG ENCODING wrong
PFSELFTEST
PFMERGE new hll
PFMERGE missing
PFMERGE new wrong
";

const STREAMS: &str = "
XACK stream grp 1-1
XACK stream nogrp 1-1
XACK missing grp 1-1
XACK wrong grp 1-1
XADD stream 5-1 f v
XADD stream 1-1 f v
XADD stream MAXLEN 1 9-1 f v
XADD missing 1-1 f v
XADD missing NOMKSTREAM 1-1 f v
XADD wrong 1-1 f v
XAUTOCLAIM stream grp con2 0 0
XAUTOCLAIM stream grp con2 0 0 JUSTID
XDEL stream 1-1 | XAUTOCLAIM stream grp con2 0 0
XAUTOCLAIM stream nogrp con2 0 0
XAUTOCLAIM missing grp con2 0 0
XAUTOCLAIM wrong grp con2 0 0
XCLAIM stream grp con2 0 1-1
XCLAIM stream grp con2 0 1-1 JUSTID
XCLAIM stream grp con2 0 2-1
XDEL stream 1-1 | XCLAIM stream grp con2 0 1-1
XCLAIM missing grp con2 0 1-1
XCLAIM wrong grp con2 0 1-1
XDEL stream 1-1 7-7
XDEL missing 1-1
XDEL wrong 1-1
XGROUP CREATE stream new $
XGROUP CREATE stream grp $
XGROUP CREATE missing new $
XGROUP CREATE missing new $ MKSTREAM
XGROUP CREATE wrong new $
XGROUP CREATECONSUMER stream grp new
XGROUP CREATECONSUMER missing grp new
XGROUP CREATECONSUMER wrong grp new
XGROUP DELCONSUMER stream grp con
XGROUP DELCONSUMER missing grp con
XGROUP DELCONSUMER wrong grp con
XGROUP DESTROY stream grp
XGROUP DESTROY stream nogrp
XGROUP DESTROY missing grp
XGROUP DESTROY wrong grp
XGROUP SETID stream grp 0
XGROUP SETID missing grp 0
XGROUP SETID wrong grp 0
XGROUP HELP
~XINFO CONSUMERS stream grp
XINFO CONSUMERS stream idle
XINFO CONSUMERS stream nogrp
XINFO CONSUMERS missing grp
XINFO CONSUMERS wrong grp
XINFO GROUPS stream
XDEL stream 1-1 | XINFO GROUPS stream
XADD s2 1-1 f v; XGROUP CREATE s2 g $; XADD s2 3-1 f v; XDEL s2 3-1; XGROUP SETID s2 g 2-0 | XINFO GROUPS s2
XINFO GROUPS missing
XINFO GROUPS wrong
XINFO STREAM stream
XDEL stream 1-1 2-1 | XINFO STREAM stream
~XINFO STREAM stream FULL
~XINFO STREAM stream FULL COUNT 1
XINFO STREAM missing
XINFO STREAM wrong
XINFO HELP
XLEN stream
XLEN missing
XLEN wrong
XPENDING stream grp
XPENDING stream idle
~XPENDING stream grp - + 10
XPENDING stream idle - + 10
~XPENDING stream grp IDLE 0 - + 10 con
XREADGROUP GROUP grp con STREAMS stream >; XADD stream 3-1 a b; XADD stream 4-1 a b; XREADGROUP GROUP grp con STREAMS stream > | ~XPENDING stream grp - + 10
XPENDING stream nogrp
XPENDING missing grp
XPENDING wrong grp
XRANGE stream - +
XRANGE stream - + COUNT 1
XRANGE stream - + COUNT 0
XRANGE stream 9 +
XRANGE stream x +
XRANGE missing - +
XRANGE missing - + COUNT 0
XRANGE wrong - +
XREAD STREAMS stream 0
XREAD COUNT 1 STREAMS stream stream 0 1-1
XREAD STREAMS stream missing 0 0
XREAD STREAMS stream $
XREAD STREAMS missing 0
XREAD STREAMS wrong 0
XREADGROUP GROUP grp con STREAMS stream >
XREADGROUP GROUP idle con COUNT 1 STREAMS stream >
XREADGROUP GROUP grp con STREAMS stream 0
XREADGROUP GROUP idle con STREAMS stream 0
XDEL stream 1-1 | XREADGROUP GROUP grp con STREAMS stream 0
XREADGROUP GROUP grp con STREAMS stream > | XREADGROUP GROUP grp con STREAMS stream >
XREADGROUP GROUP nogrp con STREAMS stream >
XREADGROUP GROUP grp con STREAMS missing >
XREADGROUP GROUP grp con STREAMS wrong >
XREVRANGE stream + -
XREVRANGE stream + - COUNT 0
XREVRANGE missing + -
XREVRANGE wrong + -
XSETID stream 9-1
XSETID stream 1-0
XSETID missing 9-1
XSETID wrong 9-1
XTRIM stream MAXLEN 1
XTRIM missing MAXLEN 1
XTRIM wrong MAXLEN 1
";

const SCRIPTS: &str = "
EVAL 'return 1' 0
EVAL 'return KEYS[1]' 1 str
EVAL 'return nil' 0
EVAL 'return false' 0
EVAL 'return true' 0
EVAL 'return {1,2,{3,false,{}}}' 0
EVAL 'return redis.call([[get]],KEYS[1])' 1 missing
EVAL 'return redis.call([[lpop]],KEYS[1],2)' 1 missing
EVAL 'return redis.call([[hgetall]],KEYS[1])' 1 hash
EVAL 'return redis.call([[zrange]],KEYS[1],0,-1,[[withscores]])' 1 zset
EVAL 'return redis.call([[geopos]],KEYS[1],[[zzz]])' 1 geo
EVAL 'return redis.call([[xread]],[[streams]],KEYS[1],0)' 1 stream
EVAL 'return redis.status_reply([[FINE]])' 0
EVAL 'return redis.error_reply([[MY error]])' 0
EVAL 'return redis.call([[incr]],KEYS[1])' 1 wronglist
EVAL 'return {double=3.25}' 0
EVAL 'return 3.99' 0
EVAL 'redis.setresp(3) return redis.call([[hgetall]],KEYS[1])' 1 hash
EVAL 'redis.setresp(3) return redis.call([[smembers]],KEYS[1])' 1 oneset
EVAL 'redis.setresp(3) return redis.call([[zscore]],KEYS[1],[[a]])' 1 onezset
EVAL 'redis.setresp(3) return redis.call([[get]],KEYS[1])' 1 missing
EVAL 'redis.setresp(3) return redis.call([[zrange]],KEYS[1],0,-1,[[withscores]])' 1 zset
EVAL 'redis.setresp(3) return true' 0
EVAL 'redis.setresp(3) return false' 0
EVAL 'redis.setresp(3) return {false,true,{map={a=1}},{set={x=true}},{big_number=[[12345678901234567890]]},{verbatim_string={format=[[txt]],string=[[hi]]}}}' 0
EVAL 'return {{map={a=1}},{set={x=true}},{big_number=[[12345678901234567890]]},{verbatim_string={format=[[mkd]],string=[[hi]]}}}' 0
EVAL s x
EVAL 'bad syntax here' 0
EVAL 'error({err=[[X y]]})' 0
EVAL 'local t={} local u=t for i=1,150 do u[1]={} u=u[1] end return t' 0
EVAL_RO 'return redis.call([[hgetall]],KEYS[1])' 1 hash
EVAL_RO 'return redis.call([[incr]],KEYS[1])' 1 num
EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
SCRIPT LOAD 'return 1' | EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
EVALSHA zzz 0
SCRIPT LOAD 'return 1' | EVALSHA_RO e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
FCALL nofunction 0
FUNCTION LOAD REPLACE '#!lua name=tally\\nredis.register_function([[f]], function(k) return {1, false} end)' | FCALL f 0
FCALL_RO nofunction 0
SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db x
SCRIPT LOAD 'return 1'
SCRIPT LOAD 'bad syntax here'
SCRIPT FLUSH
SCRIPT KILL
SCRIPT HELP
FUNCTION HELP
FUNCTION LOAD REPLACE '#!lua name=other\\nredis.register_function([[g]], function(k) return 1 end)'
FUNCTION LOAD 'bad'
FUNCTION DUMP
FUNCTION RESTORE bad
FUNCTION LOAD REPLACE '#!lua name=other\\nredis.register_function([[g]], function(k) return 1 end)' | FUNCTION DELETE other
FUNCTION DELETE nolibrary
FUNCTION FLUSH
FUNCTION KILL
";

const NODES: &str = "
DBSIZE
FLUSHALL; SET a 1 | KEYS *
KEYS missing*
FLUSHALL; SET a 1 | SCAN 0
FLUSHALL; SET a 1 | SCAN 0 TYPE string COUNT 10
SCAN x
FLUSHALL; SET a 1 | RANDOMKEY
FLUSHALL | RANDOMKEY
FLUSHALL
FLUSHDB
FLUSHDB ASYNC
WAIT 0 0
COMMAND
COMMAND COUNT
COMMAND DOCS
COMMAND DOCS get nocommand
COMMAND INFO
COMMAND INFO get nocommand zunionstore config|get
COMMAND LIST
COMMAND LIST FILTERBY ACLCAT hash
COMMAND GETKEYS MSET a 1 b 2
COMMAND GETKEYS PING x
COMMAND GETKEYSANDFLAGS LMOVE a b LEFT RIGHT
COMMAND HELP
ACL CAT
ACL CAT hash
ACL CAT nocategory
~ACL GENPASS
ACL HELP
CLIENT HELP
CONFIG HELP
LATENCY HELP
MODULE HELP
PUBSUB HELP
SLOWLOG HELP
";

/// Of commands that are refused so far.
const LATER: &str = "
BLMOVE list new LEFT RIGHT 0
BLMOVE missing new LEFT RIGHT 0.01
BRPOPLPUSH list new 0
BRPOPLPUSH missing new 0.01
BLPOP list 0
BLPOP missing 0.01
BLPOP wrong 0
BRPOP wrong 0
BLMOVE wrong new LEFT RIGHT 0
BRPOPLPUSH wrong new 0
BLMPOP 0 1 wrong LEFT
BZPOPMIN wrong 0
BZPOPMAX wrong 0
BZMPOP 0 1 wrong MIN
BRPOP list 0
BRPOP missing 0.01
BLMPOP 0 1 list LEFT COUNT 2
BLMPOP 0.01 1 missing LEFT
BZPOPMIN zset 0
BZPOPMIN missing 0.01
BZPOPMAX zset 0
BZPOPMAX missing 0.01
BZMPOP 0 2 missing zset MIN COUNT 2
BZMPOP 0.01 1 missing MIN
XREAD BLOCK 0 STREAMS stream 0
XREAD BLOCK 10 STREAMS stream $
XREADGROUP GROUP idle con BLOCK 0 STREAMS stream >
XREADGROUP GROUP grp con STREAMS stream > | XREADGROUP GROUP grp con BLOCK 10 STREAMS stream >
MOVE missing 1
SWAPDB 0 0
PUBLISH channel text
SPUBLISH channel text
PUBSUB CHANNELS
PUBSUB NUMSUB a
PUBSUB NUMPAT
FUNCTION LOAD REPLACE '#!lua name=tally\\nredis.register_function([[f]], function(k) return {1, false} end)' | FUNCTION LIST WITHCODE
FUNCTION LOAD REPLACE '#!lua name=tally\\nredis.register_function{function_name=[[f]], callback=function(k) return 1 end, flags={[[no-writes]]}}' | FUNCTION LIST
FUNCTION STATS
UNWATCH
";
