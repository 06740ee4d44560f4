//! Rows of the sorted set commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, counted, key, span};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("bzmpop", -5, "7.0.0", "O(K)+O(M*log(N))")
        .flags(&[F::WRITE, F::BLOCKING, F::MOVABLE_KEYS])
        .acl(&[C::SORTED_SET])
        .key_specs(&[counted(2, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes members from the first sorted set that has any, waiting for one to come"),
    cmd("bzpopmax", -3, "5.0.0", "O(log(N))")
        .flags(&[F::WRITE, F::NOSCRIPT, F::BLOCKING, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[span(1, -2, 1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes the member with the highest score, waiting for one to come"),
    cmd("bzpopmin", -3, "5.0.0", "O(log(N))")
        .flags(&[F::WRITE, F::NOSCRIPT, F::BLOCKING, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[span(1, -2, 1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes the member with the lowest score, waiting for one to come"),
    cmd("zadd", -4, "1.2.0", "O(log(N))")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Adds members with scores or changes their scores, on conditions if asked"),
    cmd("zcard", 2, "1.2.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Counts the members of a sorted set"),
    cmd("zcount", 4, "2.0.0", "O(log(N))")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Counts the members with scores in a range"),
    cmd("zdiff", -3, "6.2.0", "O(L + (N-K)log(N))")
        .flags(&[F::READONLY, F::MOVABLE_KEYS])
        .acl(&[C::SORTED_SET])
        .key_specs(&[counted(1, &[K::RO, K::ACCESS])])
        .summary("Lists the members of the first sorted set that are in none of the others"),
    cmd("zdiffstore", -4, "6.2.0", "O(L + (N-K)log(N))")
        .flags(&[F::WRITE, F::DENYOOM, F::MOVABLE_KEYS])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::OW, K::UPDATE]), counted(2, &[K::RO, K::ACCESS])])
        .summary("Stores the members of the first sorted set that are in none of the others"),
    cmd("zincrby", 4, "1.2.0", "O(log(N))")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::UPDATE])])
        .summary("Adds to the score of a member"),
    cmd("zinter", -3, "6.2.0", "O(N*K)+O(M*log(M))")
        .flags(&[F::READONLY, F::MOVABLE_KEYS])
        .acl(&[C::SORTED_SET])
        .key_specs(&[counted(1, &[K::RO, K::ACCESS])])
        .summary("Lists the members that all given sorted sets share"),
    cmd("zintercard", -3, "7.0.0", "O(N*K)")
        .flags(&[F::READONLY, F::MOVABLE_KEYS])
        .acl(&[C::SORTED_SET])
        .key_specs(&[counted(1, &[K::RO, K::ACCESS])])
        .summary("Counts the members that all given sorted sets share"),
    cmd("zinterstore", -4, "2.0.0", "O(N*K)+O(M*log(M))")
        .flags(&[F::WRITE, F::DENYOOM, F::MOVABLE_KEYS])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::OW, K::UPDATE]), counted(2, &[K::RO, K::ACCESS])])
        .summary("Stores the members that all given sorted sets share"),
    cmd("zlexcount", 4, "2.8.9", "O(log(N))")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Counts the members in a range of names"),
    cmd("zmpop", -4, "7.0.0", "O(K)+O(M*log(N))")
        .flags(&[F::WRITE, F::MOVABLE_KEYS])
        .acl(&[C::SORTED_SET])
        .key_specs(&[counted(1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes members with the lowest or highest scores from the first sorted set that has any"),
    cmd("zmscore", -3, "6.2.0", "O(N)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads the scores of several members"),
    cmd("zpopmax", -2, "5.0.0", "O(log(N)*M)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes the members with the highest scores"),
    cmd("zpopmin", -2, "5.0.0", "O(log(N)*M)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes the members with the lowest scores"),
    cmd("zrandmember", -2, "6.2.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Picks members at random"),
    cmd("zrange", -4, "1.2.0", "O(log(N)+M)")
        .flags(&[F::READONLY])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads members by rank, score or name, in either order"),
    cmd("zrangebylex", -4, "2.8.9", "O(log(N)+M)")
        .flags(&[F::READONLY])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .deprecated("6.2.0", "ZRANGE with BYLEX")
        .summary("Reads the members in a range of names"),
    cmd("zrangebyscore", -4, "1.0.5", "O(log(N)+M)")
        .flags(&[F::READONLY])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .deprecated("6.2.0", "ZRANGE with BYSCORE")
        .summary("Reads the members with scores in a range"),
    cmd("zrangestore", -5, "6.2.0", "O(log(N)+M)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::OW, K::UPDATE]), key(2, &[K::RO, K::ACCESS])])
        .summary("Stores the members by rank, score or name in another sorted set"),
    cmd("zrank", 3, "2.0.0", "O(log(N))")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Tells the rank of a member, lowest score first"),
    cmd("zrem", -3, "1.2.0", "O(M*log(N))")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .summary("Removes members"),
    cmd("zremrangebylex", 4, "2.8.9", "O(log(N)+M)")
        .flags(&[F::WRITE])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .summary("Removes the members in a range of names"),
    cmd("zremrangebyrank", 4, "2.0.0", "O(log(N)+M)")
        .flags(&[F::WRITE])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .summary("Removes the members in a range of ranks"),
    cmd("zremrangebyscore", 4, "1.2.0", "O(log(N)+M)")
        .flags(&[F::WRITE])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .summary("Removes the members with scores in a range"),
    cmd("zrevrange", -4, "1.2.0", "O(log(N)+M)")
        .flags(&[F::READONLY])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .deprecated("6.2.0", "ZRANGE with REV")
        .summary("Reads members by rank, highest score first"),
    cmd("zrevrangebylex", -4, "2.8.9", "O(log(N)+M)")
        .flags(&[F::READONLY])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .deprecated("6.2.0", "ZRANGE with REV and BYLEX")
        .summary("Reads the members in a range of names, last name first"),
    cmd("zrevrangebyscore", -4, "2.2.0", "O(log(N)+M)")
        .flags(&[F::READONLY])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .deprecated("6.2.0", "ZRANGE with REV and BYSCORE")
        .summary("Reads the members with scores in a range, highest first"),
    cmd("zrevrank", 3, "2.0.0", "O(log(N))")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Tells the rank of a member, highest score first"),
    cmd("zscan", -3, "2.8.0", "O(1)")
        .flags(&[F::READONLY])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .tips(&["nondeterministic_output"])
        .summary("Walks through the members and scores in steps"),
    cmd("zscore", 3, "1.2.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads the score of a member"),
    cmd("zunion", -3, "6.2.0", "O(N)+O(M*log(M))")
        .flags(&[F::READONLY, F::MOVABLE_KEYS])
        .acl(&[C::SORTED_SET])
        .key_specs(&[counted(1, &[K::RO, K::ACCESS])])
        .summary("Lists the members of any of the given sorted sets"),
    cmd("zunionstore", -4, "2.0.0", "O(N)+O(M*log(M))")
        .flags(&[F::WRITE, F::DENYOOM, F::MOVABLE_KEYS])
        .acl(&[C::SORTED_SET])
        .key_specs(&[key(1, &[K::OW, K::UPDATE]), counted(2, &[K::RO, K::ACCESS])])
        .summary("Stores the members of any of the given sorted sets"),
];
