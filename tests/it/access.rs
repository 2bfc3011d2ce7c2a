//! Access rules against a live server: the same rules to both, and the same questions.

use tally::access::{Account, Denied, NewChannels};
use tally::command;

use crate::random::Random;
use crate::redis_server::{Client, RedisServer, Value, split, with_request};

/// Accounts that are made and asked about.
const ACCOUNTS: u64 = 150;

/// Rules that each gets, one after the other.
const STEPS: u64 = 12;

#[test]
fn an_account_is_what_a_server_makes_of_the_same_rules() {
    let server = RedisServer::start();
    let mut client = server.connect();
    if !client.is_7_0() {
        return;
    }
    let seed = Random::seed_or(20_261_123);
    let mut random = Random::new(seed);
    let rules: Vec<&str> = RULES.split_whitespace().collect();
    let selectors: Vec<&str> = SELECTORS.lines().collect();
    let questions: Vec<_> = QUESTIONS.lines().map(split).collect();
    for _ in 0..ACCOUNTS {
        client.call(&["ACL", "DELUSER", "u"]);
        let mut account = Account::default();
        let mut told = vec![format!("seed {seed}")];
        for _ in 0..STEPS {
            let mut step = vec![random.pick(&rules).to_owned()];
            if random.one_in(6) {
                step.push(random.pick(&selectors).to_owned());
            }
            told.push(step.join(" "));
            let request = [&["ACL", "SETUSER", "u"][..], &texts(&step)].concat();
            let theirs = client.call(&request);
            let mut next = account.clone();
            let ours = match next.apply(step.iter().map(String::as_bytes), NewChannels::None) {
                Ok(()) => {
                    account = next;
                    b"+OK\r\n".to_vec()
                }
                Err(text) => [b"-ERR ", &*text, b"\r\n"].concat(),
            };
            assert_eq!(text(&ours), text(&theirs), "{told:?}");
        }
        compare(&mut client, &account, &told, &questions);
    }
}

#[test]
fn every_command_and_category_is_described_alike() {
    let server = RedisServer::start();
    let mut client = server.connect();
    if !client.is_7_0() {
        return;
    }
    let questions: Vec<_> = QUESTIONS.lines().map(split).collect();
    let kinds = command::Categories::ALL.iter();
    let kinds = kinds.map(|(_, name)| format!("@{name}"));
    let commands = command::commands().iter();
    let known = commands.filter(|command| !command.flags.contains(command::Flags::NEWER));
    let names = known.map(|command| command.name.to_owned());
    for name in kinds.chain(names) {
        for rules in [format!("-@all +{name}"), format!("+@all -{name}")] {
            client.call(&["ACL", "DELUSER", "u"]);
            let words: Vec<&str> = rules.split(' ').collect();
            client.call(&[&["ACL", "SETUSER", "u"][..], &words].concat());
            let mut account = Account::default();
            account
                .apply(words.iter().map(|word| word.as_bytes()), NewChannels::None)
                .unwrap();
            compare(&mut client, &account, &[rules], &questions);
        }
    }
}

#[track_caller]
fn compare(client: &mut Client, account: &Account, told: &[String], questions: &[Vec<Vec<u8>>]) {
    let theirs = Value::parse(&client.call(&["ACL", "LIST"]));
    let mut lines = theirs.array().iter().map(Value::text);
    let line = lines.find_map(|line| line.strip_prefix("user u "));
    assert_eq!(
        normal(&text(&account.words())),
        normal(line.unwrap()),
        "{told:?}"
    );

    let theirs = Value::parse(&client.call(&["ACL", "GETUSER", "u"]));
    let theirs = theirs.array();
    let flags: Vec<_> = account.flags().map(str::to_owned).collect();
    let hashes: Vec<_> = account
        .passwords()
        .iter()
        .map(|hash| hash.to_hex())
        .collect();
    assert_eq!(items(&theirs[1]), flags, "{told:?}");
    assert_eq!(items(&theirs[3]), hashes, "{told:?}");
    let mut described = account.described();
    let mut check = |fields: &[Value]| {
        let ours = described.next().expect("as many selectors");
        let ours = [ours.commands, ours.keys, ours.channels];
        for (ours, theirs) in ours.iter().zip([1, 3, 5]) {
            assert_eq!(
                normal(&text(ours)),
                normal(fields[theirs].text()),
                "{told:?}"
            );
        }
    };
    check(&theirs[4..]);
    theirs[11]
        .array()
        .iter()
        .for_each(|selector| check(selector.array()));
    assert!(described.next().is_none(), "{told:?}");

    for question in questions {
        let request = [&split("ACL DRYRUN u")[..], question].concat();
        let theirs = Value::parse(&client.call(&request));
        let ours = with_request(question, |request| {
            let command = command::lookup(request).unwrap();
            let at = |at: usize| String::from_utf8_lossy(request.arg(at)).into_owned();
            let before = "This user has no permissions to";
            match account.check(command, request, &mut Vec::new()) {
                Ok(()) => "OK".to_owned(),
                Err(Denied::Command) => format!("{before} run the '{}' command", command.name),
                Err(Denied::Key(key)) => format!("{before} access the '{}' key", at(key)),
                Err(Denied::Channel(name)) => format!("{before} access the '{}' channel", at(name)),
            }
        });
        let shown = question.iter().map(|word| text(word)).collect::<Vec<_>>();
        assert_eq!(ours, theirs.text(), "{shown:?} {told:?}");
    }
}

/// Redis tells single commands in the order of a hash table, whose seed changes from start to start,
/// and knows nothing of Tally's own: so they are sorted, without those, between the others.
fn normal(rules: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut singles = Vec::new();
    for word in rules.split(' ') {
        let (word, end) = match word.strip_suffix(')') {
            Some(word) => (word, ")"),
            None => (word, ""),
        };
        let is_single = word.starts_with(['+', '-']) && !word.contains('@');
        let name = word.get(1..).unwrap_or_default();
        let is_newer = command::named(name.as_bytes())
            .is_some_and(|command| command.flags.contains(command::Flags::NEWER));
        if is_single && !is_newer {
            singles.push(word.to_owned());
        } else if !is_single {
            words.push(word.to_owned());
        }
        if !end.is_empty() {
            singles.sort();
            words.append(&mut singles);
            words.push(end.to_owned());
        }
    }
    singles.sort();
    words.append(&mut singles);
    words
}

fn texts(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn items(reply: &Value) -> Vec<String> {
    let items = reply.array().iter();
    items.map(|item| item.text().to_owned()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Right ones and wrong ones.
const RULES: &str = "
    on off ON nopass resetpass >p >q <p <q #8e35c2cd3bf6641bdb0e2050b76932cbb2e6034a0ddacc1d9bea82a6ba57f7cf
    !8e35c2cd3bf6641bdb0e2050b76932cbb2e6034a0ddacc1d9bea82a6ba57f7cf #8E35 !zz
    sanitize-payload skip-sanitize-payload reset clearselectors
    +@all -@all allcommands nocommands +@ALL +@read -@read +@write -@write +@fast -@fast +@slow -@slow
    +@string -@string +@hash -@dangerous +@dangerous +@admin -@admin +@connection +@pubsub -@pubsub
    +@scripting -@scripting +@keyspace -@keyspace +@stream +@geo -@geo +@bitmap +@transaction +@nosuch
    +get -get +set -set +mget +GETDEL +config -config +config|get -config|get +CONFIG|set +client
    -client|kill +select|0 +select|1 +SELECT|0 -select|0 +select -select +config|nosuch +config|get|x
    +select| +nosuch -nosuch + - +@ -@ +debug|sleep +acl|whoami +object|help -object +xinfo|stream
    ~a:* ~b:? ~* allkeys resetkeys %R~r:* %W~w:* %RW~a:* %rw~x %R~a:* %W~a:* %~x %RR~x %X~x %R % %RW
    %R~* %W~* ~ ~[ab]*
    &news &n* &* allchannels resetchannels & &news.[ab]
    nosuch () (+get (nosuch) x)
";

const SELECTORS: &str = "(+get ~s:*)
(+@all ~* &*)
(%R~r:* +@read -@string)
( +set %W~s:w )
(+publish +subscribe &s:*)
(\"+get\" '~q*')
(+get \"~open)
(+@all -@dangerous ~s:* &news)
()
(~* ~a)
(on)
(+select|3 +get|x)
clearselectors";

const QUESTIONS: &str = "GET a:1
GET s:1
GET r:1
GET x
SET a:1 v
SET w:1 v
SET w:1 v GET
SET s:w v
SETRANGE w:1 0 x
STRLEN r:1
STRLEN w:1
MGET a:1 r:1
MSET a:1 1 w:1 2
COPY r:1 w:1
COPY w:1 r:1
RENAME a:1 w:1
LMOVE a:1 w:1 LEFT LEFT
BITOP AND w:1 r:1 a:1
BITFIELD r:1 GET u8 0
BITFIELD r:1 SET u8 0 1
SORT r:1
SORT r:1 STORE w:1
SORT r:1 STORE r:1
GEORADIUS r:1 1 1 1 km STORE w:1
ZUNIONSTORE w:1 2 r:1 a:1
ZUNIONSTORE a:1 2 w:1 r:1
PFMERGE w:1 r:1
PFCOUNT r:1 a:1
EXISTS r:1 w:1
TYPE s:1
XREAD STREAMS r:1 w:1 0 0
XREADGROUP GROUP g c STREAMS r:1 >
EVAL x 2 a:1 w:1
EVAL_RO x 1 r:1
FCALL f 1 a:1
WATCH a:1 x
OBJECT ENCODING a:1
PUBLISH news m
PUBLISH other m
SPUBLISH news.a m
SUBSCRIBE news n1 other
SSUBSCRIBE news
PSUBSCRIBE n*
PSUBSCRIBE news
UNSUBSCRIBE other
SUNSUBSCRIBE other
PUBSUB CHANNELS
SELECT 0
SELECT 1
SELECT 3
CONFIG GET x
CONFIG SET a b
CLIENT KILL ID 1
CLIENT SETNAME x
ACL WHOAMI
ACL LIST
AUTH p
HELLO
PING
KEYS *
FLUSHALL
MULTI
EXEC
DEBUG SLEEP 0
INFO";
