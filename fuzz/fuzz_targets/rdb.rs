//! The reader of RDB files: never panics, and says where in the file it stopped.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mtcache_persistence::check_rdb;
use mtcache_persistence::disk::SimDisk;

fuzz_target!(|data: &[u8]| {
    let disk = SimDisk::with_dir("/d");
    disk.place("/d/dump.rdb", data);
    let checked = check_rdb(&disk, Path::new("/d/dump.rdb")).expect("the file is there");
    match checked.outcome {
        Ok(report) => {
            assert!(report.keys == checked.keys && report.end <= data.len() as u64);
        }
        Err(error) => assert!(error.offset().is_none_or(|offset| offset <= data.len() as u64)),
    }
});
