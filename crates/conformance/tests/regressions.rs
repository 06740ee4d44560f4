//! The histories by which random commands once showed a difference from redis-server, cut down to what matters, replayed on
//! both servers each time. Whoever corrects a difference that `differential.rs` finds adds its lines here.

use mtcache_conformance::TestServer;
use mtcache_conformance::generate::{RESP2, RESP3, Step};
use mtcache_conformance::replay::{Pair, Tally, Tamper};

/// Commands split by spaces, `""` for an empty argument; a line that begins with `3>` is said over RESP3.
const HISTORIES: &[&str] = &[
    "HINCRBYFLOAT h f INFINITY",
    "SADD e a\nSRANDMEMBER e -9223372036854775808",
    "ZADD z 1 a\nZRANDMEMBER z -9223372036854775808",
    "HSET h f v\nHRANDFIELD h -9223372036854775808",
    "ZADD z 0 a\nZCOUNT z \"\" inf\nZCOUNT z ( 1e5000\nZRANGEBYSCORE z -1e-5000 0x10",
    "ZADD z 0 a\nZRANGE z 0 -1 LIMIT 2 -1\nZRANGE z 0 -1 LIMIT 2 1\nZRANGE z \"\" 5 LIMIT 2 -1",
    "ZADD x:0 0 a\nZRANGE x:0 - + BYLEX LIMIT 5 3 BYSCORE\nZRANGE x:0 - + BYLEX REV REV",
    "EVAL return{redis.call('BZMPOP','0','1','z','MIN'),redis.call('BLMPOP','0','1','l','LEFT'),1} 0\nPING",
    "HSET h:1 a 9e-324\nRPUSH l 1\nSORT l BY h:*->a",
    "ZRANDMEMBER none -9223372036854775807\nZRANDMEMBER none -9223372036854775807 WITHSCORES",
    "BLMPOP abc \"\" l LEFT\nBZMPOP abc 1 z NONSENSE\nBLMPOP abc 1 l LEFT\nBLMOVE l d MIDDLE LEFT abc",
    "LMPOP 1 l LEFT COUNT \"\" a\nZMPOP 1 z MIN COUNT 0 a",
    "RPUSH l 6\nZDIFF 1 l NONSENSE\nZDIFFSTORE d 1 l NONSENSE\nZINTERCARD 1 l NONSENSE",
    "ZADD z 0 f\nZINTERSTORE d 1 z WEIGHTS -5\nZMSCORE d f\nZUNION 1 z WEIGHTS -5 WITHSCORES\n3> ZUNION 1 z WEIGHTS -5 WITHSCORES",
    "ZADD z 4 d 0 c\nZADD y 0 c\nZUNION 2 y z WEIGHTS -4 1 WITHSCORES",
    "SADD e 3\nZADD z 0 3\nZINTER 2 e z WEIGHTS 7 inf AGGREGATE sum WITHSCORES\nZINTER 2 z e WEIGHTS inf 7 WITHSCORES",
    "SADD e 3\nZADD z 0 3\nZINTER 2 e z WEIGHTS 7 inf AGGREGATE min WITHSCORES\nZINTER 2 e z WEIGHTS -7 inf AGGREGATE max WITHSCORES",
    "SADD e 3\nZADD z 0 3\nZUNION 2 e z WEIGHTS 7 inf WITHSCORES\nZUNION 2 z e WEIGHTS inf 7 AGGREGATE min WITHSCORES",
    "ZADD z inf a 1 b\nZINTER 2 z z WEIGHTS 5 0 WITHSCORES\nZINTER 2 z z WEIGHTS 0 5 WITHSCORES\nZINTER 2 z z WEIGHTS 5 0 AGGREGATE MIN WITHSCORES\nZUNION 2 z z WEIGHTS 5 0 WITHSCORES",
    "ZADD z 123456789012345678 a 0.1 b -0 c\nZSCAN z 0",
    "RPUSH l a b a\nLPOS l a RANK -9223372036854775808",
    "INCRBYFLOAT f 4\nRENAME f g\nOBJECT ENCODING g",
    "HSET h e \"\"\nHSETNX h e aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nOBJECT ENCODING h",
    "SADD e 9 3 7 75 6 2 4 1 53 46 0 8 20 44 43 47 39 11 80\nSADD f e\nSUNIONSTORE g e f\nSDIFFSTORE d g f f\nOBJECT ENCODING d",
    "SLOWLOG GET 4 a\nMEMORY USAGE k SAMPLES \"\" a\nMEMORY USAGE k SAMPLES 1 SAMPLES 2",
    "3> COMMAND INFO get eval nosuch",
    "EVAL return(0/0) 0\nEVAL return(1e20) 0\nEVAL return(-1e20) 0",
    "EVAL redis.setresp() 0\nEVAL redis.setresp(4) 0\nEVAL return(redis.pcall('OBJECT','NOSUCH','k')) 0",
    "EVAL redis.setresp(3)return(type(redis.call('GET','none'))) 0\n3> EVAL return(type(redis.call('GET','none'))) 0",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff \"\"\nEVALSHA ffffffffffffffffffffffffffffffffffffffff 1",
    "HSET h a 1 b 2 c 3\nCONFIG SET hash-max-listpack-entries 2\nHSET h a 1\nOBJECT ENCODING h\nCONFIG SET hash-max-listpack-entries 512",
    "COMMAND GETKEYS EVAL b c\nCOMMAND GETKEYS EVAL b -1 c\nCOMMAND GETKEYS ZUNION b c",
];

fn steps(history: &str) -> Vec<Step> {
    let arg = |word: &str| if word == "\"\"" { Vec::new() } else { word.as_bytes().to_vec() };
    history
        .lines()
        .map(|line| {
            let (connection, line) = line.strip_prefix("3> ").map_or((RESP2, line), |line| (RESP3, line));
            Step { connection, args: line.split(' ').map(arg).collect() }
        })
        .collect()
}

#[test]
fn differences_that_were_corrected_stay_so() {
    let mut pair = Pair::start(TestServer::mtcache).unwrap();
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for history in HISTORIES {
        if let Some(difference) = pair.replay(&steps(history), Tamper::default(), &mut tally).unwrap() {
            failures.push(format!("{history}\n=> {}", difference.what));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let replies: usize = tally.commands.values().map(|[replies, ..]| replies).sum();
    assert!(replies > HISTORIES.len(), "only {replies} replies were compared");
}
