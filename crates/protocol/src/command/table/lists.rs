//! Rows of the list commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{cmd, counted, key, span};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("blmove", 6, "6.2.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::NOSCRIPT, F::BLOCKING])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE]), key(2, &[K::RW, K::INSERT])])
        .summary("Moves an element between lists, waiting for one to come"),
    cmd("blmpop", -5, "7.0.0", "O(N+M)")
        .flags(&[F::WRITE, F::BLOCKING, F::MOVABLE_KEYS])
        .acl(&[C::LIST])
        .key_specs(&[counted(2, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes elements from the first list that has any, waiting for one to come"),
    cmd("blpop", -3, "2.0.0", "O(N)")
        .flags(&[F::WRITE, F::NOSCRIPT, F::BLOCKING])
        .acl(&[C::LIST])
        .key_specs(&[span(1, -2, 1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes the first element of the first list that has any, waiting for one to come"),
    cmd("brpop", -3, "2.0.0", "O(N)")
        .flags(&[F::WRITE, F::NOSCRIPT, F::BLOCKING])
        .acl(&[C::LIST])
        .key_specs(&[span(1, -2, 1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes the last element of the first list that has any, waiting for one to come"),
    cmd("brpoplpush", 4, "2.2.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM, F::NOSCRIPT, F::BLOCKING])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE]), key(2, &[K::RW, K::INSERT])])
        .deprecated("6.2.0", "BLMOVE with RIGHT and LEFT")
        .summary("Moves the last element of a list to the front of another, waiting for one to come"),
    cmd("lindex", 3, "1.0.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads the element at a position of a list"),
    cmd("linsert", 5, "2.2.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::INSERT])])
        .summary("Inserts an element before or after another"),
    cmd("llen", 2, "1.0.0", "O(1)")
        .flags(&[F::READONLY, F::FAST])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RO])])
        .summary("Counts the elements of a list"),
    cmd("lmove", 5, "6.2.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE]), key(2, &[K::RW, K::INSERT])])
        .summary("Moves an element from an end of a list to an end of another"),
    cmd("lmpop", -4, "7.0.0", "O(N+M)")
        .flags(&[F::WRITE, F::MOVABLE_KEYS])
        .acl(&[C::LIST])
        .key_specs(&[counted(1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes elements from an end of the first list that has any"),
    cmd("lpop", -2, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes elements from the front of a list"),
    cmd("lpos", -3, "6.0.6", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Finds the positions of an element in a list"),
    cmd("lpush", -3, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::INSERT])])
        .summary("Adds elements to the front of a list, creating it when missing"),
    cmd("lpushx", -3, "2.2.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::INSERT])])
        .summary("Adds elements to the front of a list that exists"),
    cmd("lrange", 4, "1.0.0", "O(S+N)")
        .flags(&[F::READONLY])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Reads the elements between two positions of a list"),
    cmd("lrem", 4, "1.0.0", "O(N+M)")
        .flags(&[F::WRITE])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .summary("Removes elements equal to a value from a list"),
    cmd("lset", 4, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Replaces the element at a position of a list"),
    cmd("ltrim", 4, "1.0.0", "O(N)")
        .flags(&[F::WRITE])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::DELETE])])
        .summary("Keeps only the elements between two positions of a list"),
    cmd("rpop", -2, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::FAST])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE])])
        .summary("Removes elements from the end of a list"),
    cmd("rpoplpush", 3, "1.2.0", "O(1)")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::ACCESS, K::DELETE]), key(2, &[K::RW, K::INSERT])])
        .deprecated("6.2.0", "LMOVE with RIGHT and LEFT")
        .summary("Moves the last element of a list to the front of another"),
    cmd("rpush", -3, "1.0.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::INSERT])])
        .summary("Adds elements to the end of a list, creating it when missing"),
    cmd("rpushx", -3, "2.2.0", "O(N)")
        .flags(&[F::WRITE, F::DENYOOM, F::FAST])
        .acl(&[C::LIST])
        .key_specs(&[key(1, &[K::RW, K::INSERT])])
        .summary("Adds elements to the end of a list that exists"),
];
