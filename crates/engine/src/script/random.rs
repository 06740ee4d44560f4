//! The random numbers of scripts: those that Redis gives for the same seed.
//!
//! The 48-bit linear congruential generator of POSIX' `drand48` family.

/// The state of the generator.
#[derive(Debug)]
pub(crate) struct Random(u64);

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const INCREMENT: u64 = 0xB;
const MASK: u64 = (1 << 48) - 1;
const MAX: u64 = i32::MAX as u64;

impl Random {
    pub(crate) fn new(seed: u32) -> Self {
        Self((u64::from(seed) << 16) | 0x330E)
    }

    /// A number in [0, 1).
    pub(crate) fn fraction(&mut self) -> f64 {
        self.0 = (self.0.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)) & MASK;
        ((self.0 >> 17) % MAX) as f64 / MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_sequence_is_that_of_redis() {
        // `math.randomseed(0) return {math.random() * 1000000, ...}` on redis-server 7.0.15.
        let mut random = Random::new(0);
        assert_eq!((random.fraction() * 1_000_000.0) as i64, 170_828);
        assert_eq!((random.fraction() * 1_000_000.0) as i64, 749_901);
    }
}
