//! Rows of the geographic commands.

use crate::command::CommandSpec;
use crate::command::flags::{AclCategories as C, CommandFlags as F, KeyFlags as K};
use crate::command::row::{after, cmd, key};

pub(super) const ROWS: &[CommandSpec] = &[
    cmd("geoadd", -5, "3.2.0", "O(log(N))")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::GEO])
        .key_specs(&[key(1, &[K::RW, K::UPDATE])])
        .summary("Adds members at longitudes and latitudes"),
    cmd("geodist", -4, "3.2.0", "O(log(N))")
        .flags(&[F::READONLY])
        .acl(&[C::GEO])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Measures the distance between two members"),
    cmd("geohash", -2, "3.2.0", "O(log(N))")
        .flags(&[F::READONLY])
        .acl(&[C::GEO])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Tells the geohash text of members"),
    cmd("geopos", -2, "3.2.0", "O(N)")
        .flags(&[F::READONLY])
        .acl(&[C::GEO])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Tells the longitude and latitude of members"),
    cmd("georadius", -6, "3.2.0", "O(N+log(M))")
        .flags(&[F::WRITE, F::DENYOOM, F::MOVABLE_KEYS])
        .acl(&[C::GEO])
        .key_specs(&[
            key(1, &[K::RO, K::ACCESS]),
            after("STORE", 6, 0, 0, &[K::OW, K::UPDATE]),
            after("STOREDIST", 6, 0, 0, &[K::OW, K::UPDATE]),
        ])
        .deprecated("6.2.0", "GEOSEARCH and GEOSEARCHSTORE with BYRADIUS")
        .summary("Finds the members within a distance of a point, storing them if asked"),
    cmd("georadius_ro", -6, "3.2.10", "O(N+log(M))")
        .flags(&[F::READONLY])
        .acl(&[C::GEO])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .deprecated("6.2.0", "GEOSEARCH with BYRADIUS")
        .summary("Finds the members within a distance of a point"),
    cmd("georadiusbymember", -5, "3.2.0", "O(N+log(M))")
        .flags(&[F::WRITE, F::DENYOOM, F::MOVABLE_KEYS])
        .acl(&[C::GEO])
        .key_specs(&[
            key(1, &[K::RO, K::ACCESS]),
            after("STORE", 5, 0, 0, &[K::OW, K::UPDATE]),
            after("STOREDIST", 5, 0, 0, &[K::OW, K::UPDATE]),
        ])
        .deprecated("6.2.0", "GEOSEARCH and GEOSEARCHSTORE with BYRADIUS and FROMMEMBER")
        .summary("Finds the members within a distance of a member, storing them if asked"),
    cmd("georadiusbymember_ro", -5, "3.2.10", "O(N+log(M))")
        .flags(&[F::READONLY])
        .acl(&[C::GEO])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .deprecated("6.2.0", "GEOSEARCH with BYRADIUS and FROMMEMBER")
        .summary("Finds the members within a distance of a member"),
    cmd("geosearch", -7, "6.2.0", "O(N+log(M))")
        .flags(&[F::READONLY])
        .acl(&[C::GEO])
        .key_specs(&[key(1, &[K::RO, K::ACCESS])])
        .summary("Finds the members inside a circle or a box"),
    cmd("geosearchstore", -8, "6.2.0", "O(N+log(M))")
        .flags(&[F::WRITE, F::DENYOOM])
        .acl(&[C::GEO])
        .key_specs(&[key(1, &[K::OW, K::UPDATE]), key(2, &[K::RO, K::ACCESS])])
        .summary("Stores the members inside a circle or a box"),
];
