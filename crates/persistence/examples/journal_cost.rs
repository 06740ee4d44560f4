//! What the journal costs: `cargo run --release -p mtcache-persistence --example journal_cost`.
//!
//! Appends from one and from two threads (the part under the locks of the data), groups written and synced to the
//! real disk, and the replay of what was written. Times are of the thread's CPU (Linux: /proc/thread-self/schedstat), because
//! wall times swing with whatever else the machine does; those of a sync are wall times.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtcache_persistence::disk::RealDisk;
use mtcache_persistence::{Aof, AofOptions, JournalBuffer};

const COMMANDS: u32 = 2_000_000;
const VALUE: [u8; 200] = [b'v'; 200];

fn main() -> Result<(), Box<dyn Error>> {
    for threads in [1, 2] {
        println!("append, {threads} thread(s): {:.0} ns a command", appends(threads));
    }
    let dir = tempfile::tempdir()?;
    let bytes = groups(dir.path())?;
    replay(dir.path(), bytes)?;
    for size in [1, 16, 64] {
        println!("write and sync a group of {size}: {:?}", synced_groups(size)?);
    }
    Ok(())
}

/// The time that this thread has spent on a CPU.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Nanoseconds a command while another thread takes what is there.
fn appends(threads: u32) -> f64 {
    let buffer = Arc::new(JournalBuffer::new(64 << 20));
    std::thread::scope(|scope| {
        let append = || {
            let begin = cpu_time();
            for number in 0..COMMANDS {
                if number % 1024 == 0 {
                    buffer.wait_for_room(Duration::from_mins(1));
                }
                black_box(buffer.append_args(0, &[b"SET", &number.to_le_bytes(), &VALUE]));
            }
            cpu_time().saturating_sub(begin)
        };
        let writers: Vec<_> = (0..threads).map(|_| scope.spawn(append)).collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            std::thread::sleep(Duration::from_millis(2));
            buffer.recycle(buffer.take().bytes);
        }
        let spent: Duration = writers.into_iter().filter_map(|writer| writer.join().ok()).sum();
        spent.as_nanos() as f64 / f64::from(COMMANDS * threads)
    })
}

fn groups(dir: &Path) -> Result<u64, Box<dyn Error>> {
    let aof = Aof::open(Arc::new(RealDisk), dir, AofOptions::default())?;
    let (mut writer, _) = aof.replay(|_| Ok(()))?;
    let buffer = JournalBuffer::new(64 << 20);
    let begin = cpu_time();
    for number in 0..COMMANDS {
        buffer.append_args(0, &[b"SET", &number.to_le_bytes(), &VALUE]);
        if number % 1000 == 999 {
            let batch = buffer.take();
            writer.append(&batch.bytes, batch.db_before)?;
            buffer.recycle(batch.bytes);
        }
    }
    writer.sync()?;
    let bytes = writer.current_size();
    let each = cpu_time().saturating_sub(begin).as_nanos() as f64 / f64::from(COMMANDS);
    println!("buffer and write in groups of 1000, one sync: {each:.0} ns a command");
    Ok(bytes)
}

fn replay(dir: &Path, bytes: u64) -> Result<(), Box<dyn Error>> {
    let aof = Aof::open(Arc::new(RealDisk), dir, AofOptions::default())?;
    let begin = cpu_time();
    let mut sum = 0;
    let (_, report) = aof.replay(|command| {
        sum += command.args.iter().map(|arg| arg.len()).sum::<usize>();
        Ok(())
    })?;
    black_box(sum);
    let spent = cpu_time().saturating_sub(begin);
    let each = spent.as_nanos() as f64 / report.commands as f64;
    let speed = bytes as f64 / 1e6 / spent.as_secs_f64();
    println!("replay {} commands: {each:.0} ns each, {speed:.0} MB/s", report.commands);
    Ok(())
}

fn synced_groups(size: u32) -> Result<Duration, Box<dyn Error>> {
    const GROUPS: u32 = 200;
    let dir = tempfile::tempdir()?;
    let aof = Aof::open(Arc::new(RealDisk), dir.path(), AofOptions::default())?;
    let (mut writer, _) = aof.replay(|_| Ok(()))?;
    let buffer = JournalBuffer::new(64 << 20);
    let begin = Instant::now();
    for _ in 0..GROUPS {
        for number in 0..size {
            buffer.append_args(0, &[b"SET", &number.to_le_bytes(), &VALUE]);
        }
        let batch = buffer.take();
        writer.append(&batch.bytes, batch.db_before)?;
        writer.sync()?;
        buffer.recycle(batch.bytes);
    }
    Ok(begin.elapsed() / GROUPS)
}
