//! The reader of append-only files: never panics, and what it calls sound is sound by itself, command for command.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mtcache_persistence::disk::SimDisk;
use mtcache_persistence::{AofOptions, check_aof_file, cut_off_aof_file};

fuzz_target!(|data: &[u8]| {
    let disk = SimDisk::with_dir("/d");
    let (path, options) = (Path::new("/d/a.aof"), AofOptions::default());
    disk.place(path, data);
    let Ok(checked) = check_aof_file(&disk, path, &options) else { return };
    assert!(checked.sound_up_to <= data.len() as u64);
    if checked.problem.is_some() {
        cut_off_aof_file(&disk, path, checked.sound_up_to).expect("nobody has it open");
        let again = check_aof_file(&disk, path, &options).expect("it could be read before");
        assert_eq!((again.problem, again.commands, again.keys), (None, checked.commands, checked.keys));
    }
});
